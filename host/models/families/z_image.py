"""Z-Image, base and Turbo."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...layouts.ldm_layout import Source
from ...layouts.state_dicts import StateDict, count_blocks, fill
from ...text.clip import CLIP
from ...text.loading import TextWeights, qwen3_clip
from .. import latent_formats
from ..block_hooks import REPLACED
from ..model_base import Conds, ModelType
from ..rotary import ComplexPosEmbed
from ..transformer_base import TransformerModel, empty_module
from .base import Family, Sampling, TextKind, TextSource

log = logging.getLogger(__name__)

HEAD_SIZE = 128
AXES = {"axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "rope_theta": 256.0}
SETTINGS = {"shift": 3.0, "multiplier": 1.0}
TEMPLATE = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
QWEN3 = "qwen3_4b"
PENULTIMATE = -2
"""The layer of it that is read, not normed."""

FUSED = (1, 1, 1)
RENAMED = {
    "all_final_layer.2-1.": "final_layer.",
    "all_x_embedder.2-1.": "x_embedder.",
    ".attention.norm_k.": ".attention.k_norm.",
    ".attention.norm_q.": ".attention.q_norm.",
    ".attention.to_out.0.": ".attention.out.",
}
PARTS = {".attention.to_q.": 0, ".attention.to_k.": 1, ".attention.to_v.": 2}


class ZImage(TransformerModel):
    """A diffusers ZImageTransformer2DModel, which counts time from the noise to the image."""

    default_latent_format = latent_formats.Flux
    replaced = frozenset({REPLACED})
    """Nodes that skip layers change nothing: in ComfyUI, too, no hook takes the place of one of its blocks."""

    def encode_adm(self, **kwargs: Any) -> None:
        """Return None: there is no pooled text."""

    def extra_conds(self, **kwargs: Any) -> Conds:
        """Leave out a mask that hides nothing."""
        mask = kwargs.get("attention_mask")
        return super().extra_conds(**{**kwargs, "attention_mask": None if mask is None or mask.all() else mask})

    def forward_transformer(
        self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None, **conds: Any
    ) -> Tensor:
        """Call the transformer once: x (B, C, H, W), timestep 0..1 (B,), context (B, L, D) -> (B, C, H, W)."""
        if (conds.get("transformer_options") or {}).get("patches_replace"):
            _say_that_nothing_is_skipped()
        masks = conds.get("attention_mask")
        texts = [text if masks is None else text[masks[i].bool()] for i, text in enumerate(context)]
        images = list(x[:, :, None])
        found = self.diffusion_model(images, 1.0 - timestep, texts, return_dict=False)[0]
        return -torch.stack(list(found))[:, :, 0]


@cache
def _say_that_nothing_is_skipped() -> None:
    log.warning("nodes that skip or replace layers change nothing in Z-Image, here and in ComfyUI")


def _detect(sd: StateDict) -> bool:
    return "all_x_embedder.2-1.weight" in sd and "noise_refiner.0.attention.to_q.weight" in sd


def _source(key: str) -> Source:
    """Return the original's name of a weight of diffusers."""
    for part, index in PARTS.items():
        if part in key:
            return Source(key.replace(part, ".attention.qkv."), index, FUSED)
    for new, old in RENAMED.items():
        key = key.replace(new, old)
    return Source(key)


def convert(sd: StateDict) -> StateDict:
    """Return an original transformer (keys without prefix) in diffusers' layout."""
    found: StateDict = {}
    for key, tensor in sd.items():
        if key == "norm_final.weight":
            continue
        if ".attention.qkv." in key:
            rows = tensor.chunk(3)
            found |= {key.replace(".attention.qkv.", part): rows[index] for part, index in PARTS.items()}
            continue
        for new, old in RENAMED.items():
            key = new + key.removeprefix(old) if not old.startswith(".") and key.startswith(old) else key
            key = key.replace(old, new) if old.startswith(".") else key
        found[key] = tensor
    return found


def config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of `ZImageTransformer2DModel` for weights in its layout."""
    width, channels = sd["all_x_embedder.2-1.weight"].shape
    return {
        **AXES,
        "in_channels": channels // 4,
        "dim": width,
        "n_layers": count_blocks(sd, "layers."),
        "n_refiner_layers": count_blocks(sd, "noise_refiner."),
        "n_heads": width // HEAD_SIZE,
        "n_kv_heads": width // HEAD_SIZE,
        "cap_feat_dim": sd["cap_embedder.1.weight"].shape[1],
    }


def _build(sd: StateDict, dtype: torch.dtype, given: dict[str, Any] | None) -> torch.nn.Module:
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    module = empty_module(ZImageTransformer2DModel, given or config(sd))
    module.rope_embedder = ComplexPosEmbed(module.config.rope_theta, module.config.axes_dims)
    return fill(module, sd, dtype, "the transformer")


def _sampling(sd: StateDict) -> Sampling:
    return ModelType.FLOW, SETTINGS


def _text(parts: dict[str, TextWeights], source: TextSource) -> CLIP:
    return qwen3_clip(parts[QWEN3], source.tokenizer_folder(QWEN3), QWEN3, TEMPLATE, [PENULTIMATE])


FAMILY = Family(
    name="Z-Image",
    model=ZImage,
    detect=_detect,
    diffusers_class="ZImageTransformer2DModel",
    folder="transformer",
    build=_build,
    originals={"noise_refiner.0.attention.qkv.weight": convert},
    text=TextKind((QWEN3,), ("lumina2", "z_image"), _text),
    sampling=_sampling,
    lora_sources=lambda keys: {key: _source(key) for key in keys},
    lora_prefix="transformer.",
    wide_range=True,
    file_names=r"z[-_]?image",
)
