"""Stable Diffusion XL."""

from __future__ import annotations

from ...layouts.ldm_unet import convert_unet, unet_sources
from ...layouts.state_dicts import StateDict
from ...text.clip import CLIP
from ...text.loading import TextWeights, sdxl_clip
from ..architectures import build_unet
from ..model_base import SDXL
from .base import Family, TextKind, TextSource
from .sd1 import UNET, is_unet


def _detect(sd: StateDict) -> bool:
    return is_unet(sd) and "add_embedding.linear_1.weight" in sd


def _text(parts: dict[str, TextWeights], source: TextSource) -> CLIP:
    both = source.tokenizers
    tokenizers = (both["clip_l"], both["clip_g"]) if both else None
    return sdxl_clip(parts["clip_l"], parts["clip_g"], source.directories, tokenizers)


FAMILY = Family(
    name="SDXL",
    model=SDXL,
    detect=_detect,
    diffusers_class="UNet2DConditionModel",
    folder="unet",
    build=build_unet,
    originals={UNET: convert_unet},
    text=TextKind(
        ("clip_l", "clip_g"),
        ("sdxl",),
        _text,
        prefixes=("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
    ),
    lora_sources=unet_sources,
    lora_prefix="unet.",
    controlled=True,
    file_names=r"xl|ssd-1b|juggernaut|animagine",
)
