"""LoRAs as weight changes of one branch of the graph.

Drop-in replacement for `comfy.lora` and `comfy.sd.load_lora_for_models`.

A LoRA names modules by the layout that it was trained on: diffusers' or the original one, with points or with
underscores. `targets` lists every name of every module; what a file holds is looked up there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..layouts.ldm_layout import Source
from ..layouts.state_dicts import StateDict, load_state_dict, made_of
from ..runtime.patcher import ModelPatcher
from ..text.clip import CLIP
from .families import of_model

log = logging.getLogger(__name__)

FACTORS = (
    (".lora_up.weight", ".lora_down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".lora_B.default.weight", ".lora_A.default.weight"),
    (".lora.up.weight", ".lora.down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
    (".lora_B", ".lora_A"),
)
"""Endings of the two factors: up (out, rank) and down (rank, in)."""

ALPHA, MIDDLE = ".alpha", ".lora_mid.weight"
UNSUPPORTED = (".dora_scale", ".lora_magnitude_vector", ".reshape_weight")
"""Decompositions that change the weight otherwise than by a sum; applied as a plain LoRA they would be wrong."""

DIFFERENCES = {".diff": "weight", ".diff_b": "bias"}
SHOWN = 3
WHOLE = Source("")
"""All rows of a change."""


class Target(NamedTuple):
    """A weight that a LoRA module changes: its key without the ending, and which rows of the change it takes."""

    key: str
    source: Source


class Change(NamedTuple):
    """A weight change of a LoRA module, and the keys of the file that it came from."""

    kind: str
    function: Callable[[Tensor], Tensor]
    used: set[str]


Targets = dict[str, list[Target]]


def load_lora_file(
    model: ModelPatcher | None, clip: CLIP | None, path: str | Path, strength_model: float, strength_clip: float
) -> tuple[ModelPatcher | None, CLIP | None]:
    """Read a file for `load_lora_for_models`.

    Raises:
        ValueError: the file is damaged or fits neither model.
    """
    lora = load_state_dict(path)
    with made_of(Path(path)):
        return load_lora_for_models(model, clip, lora, strength_model, strength_clip)


def load_lora_for_models(
    model: ModelPatcher | None, clip: CLIP | None, lora: StateDict, strength_model: float, strength_clip: float
) -> tuple[ModelPatcher | None, CLIP | None]:
    """Return clones of a MODEL and a CLIP with a LoRA; the originals stay as they are.

    What fits neither, by name or shape, is named in a warning.

    Args:
        model: or None.
        clip: or None.
        lora: the file's tensors in the layout of kohya's scripts, of diffusers or of peft.
        strength_model: factor of the change of the model.
        strength_clip: factor of the change of the text encoders.

    Raises:
        ValueError: nothing in the file fits.
    """
    owners = [
        (model and model.clone(), model_targets(model) if model else {}, strength_model),
        (clip and clip.clone(), clip_targets(clip) if clip else {}, strength_clip),
    ]
    used: set[str] = set()
    for owner, names, strength in owners:
        used |= _add(owner, read_lora(lora, names), strength) if owner else set()
    if not used:
        raise ValueError(f"the LoRA fits neither the model nor the text encoder: it has {_some(lora)}")
    if used != set(lora):
        log.warning("%d tensors of the LoRA are not used: %s", len(set(lora) - used), _some(set(lora) - used))
    return owners[0][0], owners[1][0]


def _add(owner: ModelPatcher | CLIP, changes: list[tuple[Target, Change]], strength: float) -> set[str]:
    """Add the changes that fit, one by one since several can concern one weight; return the file's keys in use."""
    weights = (owner.patcher if isinstance(owner, CLIP) else owner).model.state_dict()
    used = set()
    for target, change in changes:
        key = f"{target.key}.{change.kind}"
        patch = partial(_rows, target.source, change.function)
        if key in weights and _has_shape(patch, weights[key]):
            owner.add_patches({key: patch}, strength)
            used |= change.used
    return used


def _has_shape(patch: Callable[[Tensor], Tensor], weight: Tensor) -> bool:
    """Return whether a change has its weight's shape, without computing it."""
    try:
        patch(torch.empty_like(weight, device="meta"))
    except RuntimeError:
        return False
    return True


def _rows(source: Source, function: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
    """Return the rows of a module's change that belong to one weight."""
    return source.take(function(weight)).reshape(weight.shape)


def _some(keys: Iterable[str]) -> str:
    shown = sorted(keys)
    return ", ".join(shown[:SHOWN]) + (" ..." if len(shown) > SHOWN else "")


def read_lora(lora: StateDict, names: Targets) -> list[tuple[Target, Change]]:
    """Return the changes in a file, for the modules that are known."""
    found = []
    for name, targets in names.items():
        found += [(target, change) for change in _changes(lora, name) for target in targets]
    return found


def _changes(lora: StateDict, name: str) -> list[Change]:
    if any(name + ending in lora for ending in UNSUPPORTED):
        return []
    changes = [
        Change(kind, partial(_difference, lora[name + ending]), {name + ending})
        for ending, kind in DIFFERENCES.items()
        if name + ending in lora
    ]
    for up, down in FACTORS:
        if name + up in lora and name + down in lora:
            return [*changes, _product_change(lora, name, name + up, name + down)]
    return changes


def _product_change(lora: StateDict, name: str, up: str, down: str) -> Change:
    middle = lora.get(name + MIDDLE)
    scale = float(lora[name + ALPHA]) / lora[down].shape[0] if name + ALPHA in lora else 1.0
    used = {key for key in (up, down, name + ALPHA, name + MIDDLE) if key in lora}
    return Change("weight", partial(_product, lora[up], lora[down], middle, scale), used)


def _difference(difference: Tensor, weight: Tensor) -> Tensor:
    return difference.to(weight)


def _product(up: Tensor, down: Tensor, middle: Tensor | None, scale: float, weight: Tensor) -> Tensor:
    """Return alpha / rank * up @ down (Hu et al. 2021, arXiv:2106.09685), with a Tucker core between them in LoCon."""
    up, down = up.to(weight).flatten(1), down.to(weight)
    if middle is None:
        return scale * up @ down.flatten(1)
    core = torch.einsum("rskl,si->rikl", middle.to(weight), down.flatten(1))
    return scale * up @ core.flatten(1)


# Names


def model_targets(model: ModelPatcher) -> Targets:
    """Return every name by which LoRAs call a module of a denoiser."""
    weights = {key.removeprefix("diffusion_model.") for key in model.model_state_dict("diffusion_model.")}
    family = of_model(model.model)
    sources, own = family.lora_sources(weights), (family.lora_prefix, "base_model.model.", "")
    names: Targets = {}
    for key, source in sources.items():
        module, _, ending = key.rpartition(".")
        if ending != "weight":
            continue
        target = Target(f"diffusion_model.{module}", WHOLE)
        for name in _diffusers_names(module, own):
            names.setdefault(name, [target])
        original = source.key.removeprefix("model.diffusion_model.").rpartition(".")[0]
        if original != module:
            part = Target(target.key, source._replace(key=""))
            for name in (f"diffusion_model.{original}", _underscored("lora_unet_", original)):
                names.setdefault(name, []).append(part)
    return names


def _underscored(prefix: str, module: str) -> str:
    return prefix + module.replace(".", "_")


def _diffusers_names(module: str, prefixes: tuple[str, ...]) -> list[str]:
    names = [prefix + module for prefix in prefixes]
    names += [_underscored(prefix, module) for prefix in ("lora_unet_", "lora_transformer_", "lycoris_")]
    # Attention processors of diffusers before 0.20.
    processor = re.sub(r"\.to_(q|k|v|out)(\.0)?$", r".processor.to_\1", module)
    return names + [prefix + processor for prefix in prefixes if processor != module]


def clip_targets(clip: CLIP) -> Targets:
    """Return every name by which LoRAs call a module of text encoders."""
    model = clip.cond_stage_model
    modules = [key.removesuffix(".weight") for key in model.state_dict() if key.endswith(".weight")]
    has_g = any(module.startswith("clip_g.") for module in modules)
    names: Targets = {}
    for module in modules:
        encoder, _, inner = module.partition(".transformer.")
        for name in _text_names(encoder, inner, has_g):
            names.setdefault(name, [Target(module, WHOLE)])
        names.setdefault(f"text_encoders.{module}", [Target(module, WHOLE)])
    return names


def _text_names(encoder: str, inner: str, has_g: bool) -> list[str]:
    """Return the first encoder is "1" or has no number, CLIP-G and T5 are the second."""
    if encoder == "clip_l":
        dotted, flat = ["text_encoder."], ["lora_te_", "lora_te1_"]
    else:
        number = 3 if encoder == "t5xxl" and has_g else 2
        dotted, flat = [f"text_encoder_{number}."], [f"lora_te{number}_"]
    return [prefix + inner for prefix in dotted] + [_underscored(prefix, inner) for prefix in flat]
