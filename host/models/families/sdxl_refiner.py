"""The refiner of Stable Diffusion XL."""

from __future__ import annotations

from typing import Any

import torch

from ...layouts.ldm_unet import convert_unet, unet_sources
from ...layouts.state_dicts import StateDict
from ...sampling.conds import CONDRegular
from ...text.clip import CLIP
from ...text.loading import TextWeights, one_clip
from ..architectures import SDXL_SIZE_EMBEDDING, build_unet
from ..model_base import SDXL, Conds
from .base import Family, TextKind, TextSource
from .sd1 import UNET, is_unet

VALUES = 5
"""Height, width, crop and aesthetic score, which the refiner is told; SDXL has six sizes."""

SCORES = {"positive": 6.0, "negative": 2.5}
"""Aesthetic scores of prompts that have none."""


class SDXLRefiner(SDXL):
    """The second half of SDXL, which is told an aesthetic score in place of a target size."""

    def extra_conds(self, **kwargs: Any) -> Conds:
        """Add `time_ids` (1, 5): size, crop, score; height before width."""
        out = super().extra_conds(**kwargs)
        kind = "negative" if kwargs.get("prompt_type") == "negative" else "positive"
        values = [kwargs.get(name, default) for name, default in (("height", 768), ("width", 768))]
        values += [kwargs.get("crop_h", 0), kwargs.get("crop_w", 0), kwargs.get("aesthetic_score", SCORES[kind])]
        out["time_ids"] = CONDRegular(torch.tensor([values], dtype=torch.float32))
        return out


def _detect(sd: StateDict) -> bool:
    """Return whether the pooled text, as wide as the context, and five values are what the UNet is told."""
    if not is_unet(sd) or "add_embedding.linear_1.weight" not in sd:
        return False
    context = next((sd[key].shape[1] for key in sd if key.endswith("attn2.to_k.weight")), 0)
    return sd["add_embedding.linear_1.weight"].shape[1] == context + VALUES * SDXL_SIZE_EMBEDDING


def _text(parts: dict[str, TextWeights], source: TextSource) -> CLIP:
    return one_clip("clip_g", parts["clip_g"], source.directories, source.tokenizers.get("clip_g"), norm_layer=False)


FAMILY = Family(
    name="SDXL refiner",
    model=SDXLRefiner,
    detect=_detect,
    diffusers_class="UNet2DConditionModel",
    folder="unet",
    build=build_unet,
    originals={UNET: convert_unet},
    text=TextKind(("clip_g",), ("stable_diffusion",), _text, prefixes=("conditioner.embedders.0.model.",)),
    lora_sources=unet_sources,
    lora_prefix="unet.",
    file_names=r"refiner",
)
