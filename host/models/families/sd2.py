"""Stable Diffusion 2."""

from __future__ import annotations

from ...layouts.ldm_unet import convert_unet, unet_sources
from ...layouts.state_dicts import StateDict
from ...text.clip import CLIP
from ...text.loading import TextWeights, one_clip
from ..architectures import build_unet
from ..model_base import SD15, ModelType
from .base import Family, Sampling, TextKind, TextSource
from .sd1 import UNET, is_unet

V_PROBE = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
V_DEVIATION = 0.09
"""Above it, the weights of the probe are those of a model that was trained further, to predict v."""


class SD2(SD15):
    """Stable Diffusion 2: the same UNet with linear projections."""


def _detect(sd: StateDict) -> bool:
    if not is_unet(sd) or "add_embedding.linear_1.weight" in sd or "class_embedding.linear_1.weight" in sd:
        return False
    return any(key.endswith("proj_in.weight") and sd[key].ndim == 2 for key in sd)


def _sampling(sd: StateDict) -> Sampling:
    probe = sd.get(V_PROBE)
    further = probe is not None and float(probe.float().std(unbiased=False)) > V_DEVIATION
    return (ModelType.V_PREDICTION if further and sd["conv_in.weight"].shape[1] == 4 else ModelType.EPS), None


def _text(parts: dict[str, TextWeights], source: TextSource) -> CLIP:
    return one_clip("clip_h", parts["clip_h"], source.directories, source.tokenizers.get("clip_h"), norm_layer=True)


FAMILY = Family(
    name="Stable Diffusion 2",
    model=SD2,
    detect=_detect,
    diffusers_class="UNet2DConditionModel",
    folder="unet",
    build=build_unet,
    originals={UNET: convert_unet},
    text=TextKind(("clip_h",), ("stable_diffusion",), _text, prefixes=("cond_stage_model.model.",)),
    sampling=_sampling,
    lora_sources=unet_sources,
    lora_prefix="unet.",
    file_names=r"sd-?(v?2|2[01])|v2-[01]|512-base-ema|768-v-ema|512-inpainting-ema",
)
