"""Stable Diffusion 1."""

from __future__ import annotations

from ...layouts.ldm_unet import convert_unet, unet_sources
from ...layouts.state_dicts import StateDict
from ...text.clip import CLIP
from ...text.loading import TextWeights, sd1_clip
from ..architectures import build_unet
from ..model_base import SD15
from .base import Family, TextKind, TextSource

UNET = "input_blocks.0.0.weight"
"""A key of original UNets."""


def is_unet(sd: StateDict) -> bool:
    """Return whether weights in diffusers' layout are a UNet's."""
    return "down_blocks.0.resnets.0.conv1.weight" in sd


def _detect(sd: StateDict) -> bool:
    return is_unet(sd) and "add_embedding.linear_1.weight" not in sd


def _text(parts: dict[str, TextWeights], source: TextSource) -> CLIP:
    return sd1_clip(parts["clip_l"], source.directories, source.tokenizers.get("clip_l"))


FAMILY = Family(
    name="Stable Diffusion 1.5",
    model=SD15,
    detect=_detect,
    diffusers_class="UNet2DConditionModel",
    folder="unet",
    build=build_unet,
    originals={UNET: convert_unet},
    text=TextKind(("clip_l",), ("stable_diffusion",), _text, prefixes=("cond_stage_model.transformer.",)),
    lora_sources=unet_sources,
    lora_prefix="unet.",
    controlled=True,
    file_names=r"sd-?(v?1|15)|v1-5|dreamshaper_8",
)
