"""Random adapters for every matrix of the denoisers of `family_cases`, in the layouts of trainers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import tiny_models as tiny
import torch
from comfyui.family_cases import CASES
from tessera.host.models.families import recognise
from tiny_models import StateDict

RANK, ALPHA = 3, 2.0
BLOCKS = re.compile(r"^(?!distilled_guidance).*(blocks|layers|refiner)\.\d+\.")
"""What ComfyUI knows by diffusers' names."""

FAMILIES = ("sd15", "ssd-1b", "sd35", "flux", "chroma", "flux2", "z-image", "qwen-image")
Shape = tuple[int, ...]
Factors = Callable[[Shape, torch.Generator], StateDict]
"""The tensors of a module, by the endings of their keys."""


def _spread(*shape: int, size: float, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, generator=generator) * size


def low_rank(shape: Shape, generator: torch.Generator) -> StateDict:
    size = (0.3 / math.prod(shape[1:]) ** 0.5) ** 0.5
    up = _spread(shape[0], RANK, *[1] * (len(shape) - 2), size=size, generator=generator)
    down = _spread(RANK, *shape[1:], size=size, generator=generator)
    return {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(ALPHA)}


def peft(shape: Shape, generator: torch.Generator) -> StateDict:
    made = low_rank(shape, generator)
    return {"lora_B.weight": made["lora_up.weight"], "lora_A.weight": made["lora_down.weight"]}


def dora(columns: bool) -> Factors:
    def make(shape: Shape, generator: torch.Generator) -> StateDict:
        axis = 1 if columns else 0
        sides = [side if place == axis else 1 for place, side in enumerate(shape)]
        scale = 1.0 + _spread(*sides, size=0.2, generator=generator)
        return {**low_rank(shape, generator), "dora_scale": scale * (shape[0] / shape[1]) ** (0.5 * columns)}

    return make


def hadamard(shape: Shape, generator: torch.Generator) -> StateDict:
    size = (0.3 / math.prod(shape[1:]) ** 0.5 / RANK) ** 0.25
    sides = {"a": (shape[0], RANK), "b": (RANK, math.prod(shape[1:]))}
    halves = {f"hada_w{i}_{j}": _spread(*sides[j], size=size, generator=generator) for i in (1, 2) for j in "ab"}
    return {**halves, "alpha": torch.tensor(ALPHA)}


def kronecker(shape: Shape, generator: torch.Generator) -> StateDict:
    out, into = (math.gcd(side, 4) for side in shape[:2])
    size = (0.3 / math.prod(shape[1:]) ** 0.5) ** 0.5
    first = _spread(out, into, size=size, generator=generator)
    rows, columns = shape[0] // out, shape[1] // into
    if len(shape) > 2:
        return {"lokr_w1": first, "lokr_w2": _spread(rows, columns, *shape[2:], size=size, generator=generator)}
    size **= 0.5
    outer = _spread(rows, RANK, size=size, generator=generator)
    inner = _spread(RANK, columns, size=size, generator=generator)
    return {"lokr_w1": first, "lokr_w2_a": outer, "lokr_w2_b": inner, "alpha": torch.tensor(ALPHA)}


def generalized(shape: Shape, generator: torch.Generator) -> StateDict:
    """As LyCORIS saves them now."""
    into = math.prod(shape[1:])
    a1, a2 = (_spread(*sides, size=(0.1 / shape[1]) ** 0.5, generator=generator) for sides in _pair(shape[1], shape[1]))
    b1, b2 = (_spread(*sides, size=(0.3 / into**0.5) ** 0.5, generator=generator) for sides in _pair(shape[0], into))
    factors = {
        f"{name}.weight": factor for name, factor in zip(("a1", "a2", "b1", "b2"), (a1, a2, b1, b2), strict=True)
    }
    return {**factors, "alpha": torch.tensor(ALPHA)}


def generalized_before(shape: Shape, generator: torch.Generator) -> StateDict:
    """As LyCORIS saved them before version 2, where the factors change places and kernels are rows."""
    into = math.prod(shape[1:])
    a2, a1 = (_spread(*sides, size=(0.1 / into) ** 0.5, generator=generator) for sides in _pair(into, into))
    b2, b1 = (_spread(*sides, size=(0.3 / into**0.5) ** 0.5, generator=generator) for sides in _pair(shape[0], into))
    return {f"{name}.weight": factor for name, factor in zip(("a1", "a2", "b1", "b2"), (a1, a2, b1, b2), strict=True)}


def _pair(rows: int, columns: int) -> tuple[Shape, Shape]:
    return (rows, RANK), (RANK, columns)


def orthogonal(shape: Shape, generator: torch.Generator) -> StateDict:
    size = math.gcd(shape[0], 4)
    blocks = _spread(shape[0] // size, size, size, size=0.2, generator=generator)
    return {"oft_blocks": blocks, "alpha": torch.tensor(0.05 * shape[0] ** 0.5)}


def butterfly(shape: Shape, generator: torch.Generator) -> StateDict:
    """Of two levels, where rows allow it."""
    size = 4 if shape[0] % 4 == 0 else 2
    levels = 2 if shape[0] % (2 * size) == 0 else 1
    blocks = _spread(levels, shape[0] // size, size, size, size=0.2, generator=generator)
    return {"oft_blocks": blocks, "alpha": torch.tensor(0.0)}


def rescaled_butterfly(shape: Shape, generator: torch.Generator) -> StateDict:
    """Of as many levels as reach every row, where their number is a power of two times an even one."""
    size = shape[0] & -shape[0]
    size = shape[0] // size * 2 if size > 1 else shape[0]
    levels = (shape[0] // size).bit_length()
    blocks = _spread(levels, shape[0] // size, size, size, size=0.05, generator=generator)
    rescale = 1.0 + _spread(shape[0], *[1] * (len(shape) - 1), size=0.1, generator=generator)
    return {"oft_blocks": blocks, "rescale": rescale, "alpha": torch.tensor(2.0)}


FORMS: dict[str, tuple[str, bool, Factors]] = {
    "kohya": ("lora_unet_", False, low_rank),
    "loha": ("lora_unet_", False, hadamard),
    "dora": ("diffusion_model.", False, dora(columns=False)),
    "dora-columns": ("lycoris_", True, dora(columns=True)),
    "lokr": ("lycoris_", True, kronecker),
    "peft": ("transformer.", True, peft),
    "glora": ("lora_unet_", False, generalized),
    "glora-before": ("lora_unet_", False, generalized_before),
    "oft": ("lora_unet_", False, orthogonal),
    "boft": ("lora_unet_", False, butterfly),
    "boft-rescaled": ("lora_unet_", False, rescaled_butterfly),
}
"""What comes before the names of modules, whether they are diffusers', and the tensors of each."""

LORAS = {
    "flux-control+tools": ("flux-control", "tools"),
    **{f"{family}+whole": (family, "whole") for family in FAMILIES},
} | {
    f"{family}+{form}": (family, form)
    for family in FAMILIES
    for form in FORMS
    if form != "peft" or family not in ("sd15", "ssd-1b")
}


def _modules(case: str, diffusers: bool) -> Iterator[tuple[str, Shape]]:
    """Modules that a LoRA can change, with the shapes of their weights."""
    weights = {key.removeprefix("model.diffusion_model."): tensor for key, tensor in CASES[case].weights().items()}
    family, converted = recognise(weights)
    if not diffusers:
        names = {
            source.key.removeprefix("model.diffusion_model.") for source in family.lora_sources(set(converted)).values()
        }
        found = {name: weights[name] for name in sorted(names)}
    else:
        found = {key: tensor for key, tensor in converted.items() if BLOCKS.search(key)}
    for key, tensor in found.items():
        if key.endswith(".weight") and tensor.ndim > 1:
            yield key.removesuffix(".weight"), tuple(tensor.shape)


def lora(case: str, form: str) -> StateDict:
    """The file of an adapter."""
    generator = torch.Generator().manual_seed(9)
    if form in ("tools", "whole"):
        return (control if form == "tools" else whole)(case, generator)
    prefix, diffusers, make = FORMS[form]
    made: StateDict = {}
    for module, shape in _modules(case, diffusers):
        name = prefix + (module if prefix.endswith(".") else module.replace(".", "_"))
        made |= {f"{name}.{ending}": tensor for ending, tensor in make(shape, generator).items()}
    return made


def control(case: str, generator: torch.Generator) -> StateDict:
    """A LoRA that makes Flux.1 see an image beside its latents, as Black Forest Labs' tools have it."""
    made: StateDict = {}
    for module, shape in _modules(case, diffusers=False):
        wider = (shape[0], 2 * shape[1]) if module == "img_in" else shape
        made |= {f"{module}.{ending}": tensor for ending, tensor in peft(wider, generator).items()}
        made[f"{module}.lora_B.bias"] = _spread(shape[0], size=0.1, generator=generator)
    for key, tensor in CASES[case].weights().items():
        if key.endswith("_norm.scale"):
            made[key] = 1.0 + _spread(*tensor.shape, size=0.1, generator=generator)
    return made


def whole(case: str, generator: torch.Generator) -> StateDict:
    """Differences of every weight, bias and norm, and a layer that is replaced."""
    weights = {key.removeprefix("model.diffusion_model."): tensor for key, tensor in CASES[case].weights().items()}
    made: StateDict = {}
    for key, tensor in weights.items():
        module, _, kind = key.rpartition(".")
        if kind not in ("weight", "scale", "bias"):
            continue
        size = 0.1 * (1.0 if tensor.ndim == 1 else math.prod(tensor.shape[1:]) ** -0.5)
        ending = {1: "b_norm" if f"{module}.weight" in weights and weights[f"{module}.weight"].ndim == 1 else "diff_b"}
        if kind != "bias":
            ending = {1: "w_norm"}
        changed = _spread(*tensor.shape, size=size, generator=generator)
        made[f"diffusion_model.{module}.{ending.get(tensor.ndim, 'diff')}"] = changed
    return made


def write_loras(folder: Path, names: list[str]) -> None:
    """Write the files of some adapters."""
    for name in names:
        tiny.save(folder / f"{name}.safetensors", lora(*LORAS[name]))
