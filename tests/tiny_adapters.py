"""Random IP-Adapters in the layouts of published files, and an image encoder that needs no weights."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from tessera.ip_adapter.layers import find_layers
from tessera.patching.attention import DOUBLE
from torch import Tensor, nn

StateDict = dict[str, Tensor]
EMBEDDING, PATCHES, PATCH = 24, 5, 128
TOKENS = {"base": 4, "plus": 3, "full": PATCHES}


def random_adapter(unet: nn.Module, kind: str = "base", seed: int = 0) -> dict[str, StateDict]:
    """An adapter for a UNet, nested as in `.bin` files."""
    torch.manual_seed(seed)
    layers = find_layers(unet)
    width = layers[0].width
    image_proj = _PROJECTORS[kind](width)
    ip_adapter = {}
    for layer in layers:
        for part in "kv":
            ip_adapter[f"{layer.number}.to_{part}_ip.weight"] = torch.randn(layer.channels, width) * width**-0.5
    return {"image_proj": {key: tensor.clone() for key, tensor in image_proj.items()}, "ip_adapter": ip_adapter}


def random_xlabs(transformer: nn.Module, seed: int = 0) -> StateDict:
    """An adapter for Flux under XLabs' names."""
    torch.manual_seed(seed)
    layers = [layer for layer in find_layers(transformer) if layer.key[0] == DOUBLE]
    found = {f"ip_adapter_proj_model.{key}": tensor for key, tensor in _base(layers[0].width).items()}
    for layer in layers:
        for part in "kv":
            name = f"double_blocks.{layer.number}.processor.ip_adapter_double_stream_{part}_proj"
            found[f"{name}.weight"] = torch.randn(layer.channels, layer.width) * layer.width**-0.5
            found[f"{name}.bias"] = 0.2 * torch.randn(layer.channels)
    return found


def random_instantx(transformer: nn.Module, reads: int = EMBEDDING, tokens: int = 4, seed: int = 0) -> Any:
    """An adapter for Flux as InstantX publishes it, nested."""
    torch.manual_seed(seed)
    layers = find_layers(transformer)
    width = layers[0].width
    inner = [nn.Linear(reads, 2 * reads), nn.GELU(), nn.Linear(2 * reads, tokens * width)]
    image_proj = _spread(nn.ModuleDict({"proj": nn.Sequential(*inner), "norm": nn.LayerNorm(width)}))
    shapes = {f"{layer.number}.to_{part}_ip.weight": (layer.channels, width) for layer in layers for part in "kv"}
    ip_adapter = {key: torch.randn(shape) * width**-0.5 for key, shape in shapes.items()}
    return {"image_proj": image_proj, "ip_adapter": ip_adapter}


def flat(adapter: dict[str, StateDict], ip_adapter: str = "ip_adapter", image_proj: str = "image_proj") -> StateDict:
    """The same as in `.safetensors` files."""
    names = {"ip_adapter": ip_adapter, "image_proj": image_proj}
    return {f"{names[part]}.{key}": tensor for part, weights in adapter.items() for key, tensor in weights.items()}


def _spread(module: nn.Module) -> StateDict:
    return {key: t + 0.1 * torch.randn_like(t) for key, t in module.state_dict().items()}


def _base(width: int) -> StateDict:
    parts = nn.ModuleDict({"proj": nn.Linear(EMBEDDING, 4 * width), "norm": nn.LayerNorm(width)})
    return _spread(parts)


def _full(width: int) -> StateDict:
    layers = [nn.Linear(PATCH, PATCH), nn.GELU(), nn.Linear(PATCH, width), nn.LayerNorm(width)]
    return _spread(nn.ModuleDict({"proj": nn.Sequential(*layers)}))


def _face(width: int, tokens: int = 4) -> StateDict:
    layers = [nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, tokens * width)]
    return _spread(nn.ModuleDict({"proj": nn.Sequential(*layers), "norm": nn.LayerNorm(width)}))


def _resampler(inner: int, width: int, depth: int, patch: int = PATCH) -> nn.Module:
    def layer() -> nn.Module:
        attention = {
            "norm1": nn.LayerNorm(inner),
            "norm2": nn.LayerNorm(inner),
            "to_q": nn.Linear(inner, inner, bias=False),
            "to_kv": nn.Linear(inner, 2 * inner, bias=False),
            "to_out": nn.Linear(inner, inner, bias=False),
        }
        wide = [nn.Linear(inner, 4 * inner, bias=False), nn.GELU(), nn.Linear(4 * inner, inner, bias=False)]
        return nn.ModuleList([nn.ModuleDict(attention), nn.Sequential(nn.LayerNorm(inner), *wide)])

    parts = {
        "proj_in": nn.Linear(patch, inner),
        "proj_out": nn.Linear(inner, width),
        "norm_out": nn.LayerNorm(width),
        "layers": nn.ModuleList([layer() for _ in range(depth)]),
    }
    return nn.ModuleDict(parts)


def _plus(width: int) -> StateDict:
    return {**_spread(_resampler(128, width, 4)), "latents": torch.randn(1, TOKENS["plus"], 128)}


def _face_plus(width: int) -> StateDict:
    inside = _spread(_resampler(width, width, 4))
    return _face(width) | {f"perceiver_resampler.{key}": tensor for key, tensor in inside.items()}


def _face_raw(width: int) -> StateDict:
    return {**_spread(_resampler(128, width, 4, 512)), "latents": torch.randn(1, TOKENS["plus"], 128)}


_PROJECTORS = {
    "base": _base,
    "plus": _plus,
    "full": _full,
    "face": _face,
    "portrait": partial(_face, tokens=16),
    "face_plus": _face_plus,
    "face_raw": _face_raw,
}


def random_lora(unet: nn.Module, rank: int = 3) -> StateDict:
    """The LoRA of a FaceID file, for all attentions of a UNet."""
    found = {}
    for layer in find_layers(unet):
        block: Any = unet.get_submodule(layer.name)
        for number, attention in ((layer.number - 1, block.attn1), (layer.number, block.attn2)):
            for part in ("q", "k", "v", "out"):
                linear = attention.to_out[0] if part == "out" else getattr(attention, f"to_{part}")
                rows, columns = linear.weight.shape
                found[f"{number}.to_{part}_lora.up.weight"] = 0.1 * torch.randn(rows, rank)
                found[f"{number}.to_{part}_lora.down.weight"] = 0.1 * torch.randn(rank, columns)
    return found


class Encoder:
    """Stands for a CLIP_VISION: what it says depends on the image, smoothly."""

    def __init__(self, embedding: int = EMBEDDING, patch: int = PATCH) -> None:
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(3, embedding, generator=generator)
        self.patches = torch.randn(3, PATCHES * patch, generator=generator)
        self.model = SimpleNamespace(state_dict=lambda: {"visual_projection.weight": torch.empty(embedding, patch)})
        self.calls = 0

    def encode_image(self, image: Tensor, crop: bool = True) -> Any:
        self.calls += 1
        colour = image[..., :3].mean((1, 2))
        hidden = (colour @ self.patches).unflatten(-1, (PATCHES, -1))
        return SimpleNamespace(image_embeds=colour @ self.weight, penultimate_hidden_states=hidden)


def plain_image(red: float, green: float = 0.5, blue: float = 0.2, size: int = 16) -> Tensor:
    """An image (1, size, size, 3) of one colour."""
    return torch.tensor([red, green, blue]).expand(1, size, size, 3)


def random_timed(transformer: nn.Module, patch: int = PATCH, tokens: int = 3, seed: int = 0) -> Any:
    """An adapter for Stable Diffusion 3.5 as InstantX publishes it, nested."""
    torch.manual_seed(seed)
    layers, inner, wave = find_layers(transformer), 128, 32
    width, head = layers[0].channels, layers[0].channels // layers[0].heads
    resampler: Any = _resampler(inner, width, 4, patch)
    for each in resampler["layers"]:
        each.append(nn.Sequential(nn.SiLU(), nn.Linear(inner, 4 * inner)))
    embedding = {"linear_1": nn.Linear(wave, inner), "linear_2": nn.Linear(inner, inner)}
    resampler["time_embedding"] = nn.ModuleDict(embedding)
    image_proj = {**_spread(resampler), "latents": torch.randn(1, tokens, inner)}
    ip_adapter = {}
    for layer in layers:
        at = f"{layer.number}."
        ip_adapter |= {f"{at}to_{part}_ip.weight": torch.randn(width, width) * width**-0.5 for part in "kv"}
        ip_adapter |= {f"{at}norm_{part}.weight": 1 + 0.2 * torch.randn(head) for part in ("q", "k", "ip_k")}
        ip_adapter[f"{at}norm_ip.linear.weight"] = torch.randn(2 * width, inner) * inner**-0.5
        ip_adapter[f"{at}norm_ip.linear.bias"] = 0.1 * torch.randn(2 * width)
    return {"image_proj": image_proj, "ip_adapter": ip_adapter}
