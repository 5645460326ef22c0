"""Flux.1."""

from __future__ import annotations

from ...layouts.ldm_layout import Source, convert_flux, flux_sources
from ...layouts.state_dicts import StateDict
from ...text.clip import CLIP
from ...text.loading import TextWeights, flux_clip
from ..architectures import build_flux
from ..model_base import Flux, ModelType
from .base import Family, Sampling, TextKind, TextSource

GUIDANCE = "time_text_embed.guidance_embedder.linear_1.weight"
SCHNELL = {"shift": 1.0, "multiplier": 1.0}


def _detect(sd: StateDict) -> bool:
    return "x_embedder.weight" in sd and "single_transformer_blocks.0.proj_mlp.weight" in sd


def _sampling(sd: StateDict) -> Sampling:
    return (None, None) if GUIDANCE in sd else (ModelType.FLOW, SCHNELL)


def _text(parts: dict[str, TextWeights], source: TextSource) -> CLIP:
    folder = source.tokenizer_folder("t5xxl")
    return flux_clip(parts["clip_l"], parts["t5xxl"], folder, source.directories, source.tokenizers.get("clip_l"))


def _count(keys: set[str], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in keys if key.startswith(prefix)})


def _lora_sources(keys: set[str]) -> dict[str, Source]:
    blocks = _count(keys, "transformer_blocks."), _count(keys, "single_transformer_blocks.")
    return flux_sources(*blocks, any("guidance_embedder" in key for key in keys))


FAMILY = Family(
    name="Flux.1",
    model=Flux,
    detect=_detect,
    diffusers_class="FluxTransformer2DModel",
    folder="transformer",
    build=build_flux,
    originals={"double_blocks.0.img_attn.qkv.weight": convert_flux},
    text=TextKind(("clip_l", "t5xxl"), ("flux",), _text),
    sampling=_sampling,
    lora_sources=_lora_sources,
    lora_prefix="transformer.",
    wide_range=True,
    controlled=True,
    file_names=r"flux[-_.]?1|flux1",
)
