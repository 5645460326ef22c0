"""The registry of model families, each known by the keys of its weights, and the models made of them.

Adding a family is a page beside these, and its name in `FAMILIES`; nothing else knows one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ...layouts.ldm_vae import convert_vae
from ...layouts.quantized import dequantized
from ...layouts.state_dicts import StateDict, name_keys
from ...runtime import devices
from ...runtime.patcher import ModelPatcher
from ...runtime.running import make_patcher
from ...text.clip import CLIP
from ...text.loading import TextWeights
from .. import latent_formats
from ..architectures import build_vae, vae_config
from ..frames_vae import FramesVAE, build_frames_vae, frames_channels, is_frames_vae
from ..model_base import ModelType
from ..vae import VAE, PackedVAE
from . import chroma, flux, flux2, lotus, qwen_image, sd1, sd2, sd2_unclip, sd3, sdxl, sdxl_refiner, z_image
from .base import Family, TextKind, TextSource

FAMILIES: tuple[Family, ...] = (
    chroma.FAMILY,
    flux2.FAMILY,
    flux.FAMILY,
    sd3.FAMILY,
    qwen_image.FAMILY,
    z_image.FAMILY,
    sdxl_refiner.FAMILY,
    sdxl.FAMILY,
    lotus.FAMILY,
    sd2_unclip.FAMILY,
    sd2.FAMILY,
    sd1.FAMILY,
)
"""In the order in which they are asked whether weights are theirs."""

STATISTICS = ("bn.running_mean", "bn.running_var")
"""Keys of a VAE that norms its latents itself."""

FORMATS_ELSEWHERE = r"int4|w4a|nvfp4|mxfp8|nf4|\.gguf$"
"""What names of files say of formats that need ComfyUI."""


def names() -> str:
    """Return the names of all families, for messages."""
    *others, last = sorted(family.name for family in FAMILIES)
    return f"{', '.join(others)} or {last}"


def recognise(sd: StateDict) -> tuple[Family, StateDict]:
    """Return the family of a denoiser (keys without prefix), and its weights in diffusers' layout.

    Raises:
        ValueError: it is of no known family.
    """
    sd = dequantized(sd, devices.model_dtype(torch.bfloat16, wide_range=True))
    for family in FAMILIES:
        for key, convert in family.originals.items():
            if key in sd:
                converted = convert(sd)
                return _family_of(converted, sd), converted
    return _family_of(sd, sd), sd


def _family_of(sd: StateDict, found: StateDict) -> Family:
    family = next((family for family in FAMILIES if family.detect(sd)), None)
    if family is None:
        raise ValueError(f"the architecture is not supported: it has {name_keys(found)}, expected {names()}")
    return family


def of_model(model: Any) -> Family:
    """Return the family of a `BaseModel`."""
    return next(family for family in FAMILIES if type(model) is family.model)


def of_class(class_name: str | None) -> list[Family]:
    """Return the families whose denoisers diffusers calls so."""
    return [family for family in FAMILIES if family.diffusers_class == class_name]


def of_file_name(name: str) -> Family | None:
    """Return the family whose files are usually called so; None for weights in formats that are not read."""
    if re.search(FORMATS_ELSEWHERE, name.lower()):
        return None
    return next((family for family in FAMILIES if re.search(family.file_names, name.lower())), None)


def make_model(
    sd: StateDict,
    config: dict[str, Any] | None = None,
    model_type: ModelType | None = None,
    sampling_settings: dict[str, Any] | None = None,
    scale_factor: float | None = None,
    family: Family | None = None,
) -> ModelPatcher:
    """Return the MODEL of a denoiser's weights in diffusers' layout.

    Args:
        sd: the weights.
        config: of diffusers' module; derived from shapes when not given.
        model_type: the family's by default.
        sampling_settings: of the noise schedule.
        scale_factor: of the VAE where it differs from the family's.
        family: of the weights, where it is known already.
    """
    family = family or _family_of(sd, sd)
    stored = next(iter(sd.values())).dtype
    module = _built(family, sd, devices.model_dtype(stored, wide_range=family.wide_range), config)
    own_type, own_settings = family.sampling(sd)
    if model_type is None:
        model_type, sampling_settings = own_type, sampling_settings or own_settings
    latent_format: type[latent_formats.LatentFormat] = family.model.default_latent_format
    return make_patcher(family.model(module, model_type, sampling_settings, latent_format(scale_factor)))


def _built(family: Family, sd: StateDict, dtype: torch.dtype, config: dict[str, Any] | None) -> torch.nn.Module:
    try:
        return family.build(sd, dtype, config)
    except ModuleNotFoundError as error:
        raise ValueError(f"{family.name} needs a newer diffusers, which has {error.name}; upgrade it") from None


def make_vae(sd: StateDict, config: dict[str, Any] | None = None) -> VAE:
    """Return the VAE of weights (keys without prefix) in the original or diffusers' layout."""
    sd = dequantized(sd, devices.vae_dtype())
    if config is not None and "batch_norm_eps" in config:
        config = None  # Of a class of diffusers that is this one with the statistics inside.
    if is_frames_vae(sd):
        return FramesVAE(build_frames_vae(sd, devices.vae_dtype()))
    kept = {key: tensor for key, tensor in sd.items() if not key.startswith("bn.")}
    module = build_vae(convert_vae(kept), devices.vae_dtype(), config)
    return PackedVAE(module, *(sd[key] for key in STATISTICS)) if set(STATISTICS) <= set(sd) else VAE(module)


def vae_channels(sd: StateDict) -> int:
    """Return how many channels the latents of a VAE (keys without prefix) have, by shapes alone.

    Raises:
        ValueError: it is of another kind.
    """
    if is_frames_vae(sd):
        return frames_channels(sd)
    if set(STATISTICS) <= set(sd):
        return len(sd[STATISTICS[0]])
    return vae_config(convert_vae(sd))["latent_channels"]


def text_kinds(clip_type: str) -> list[TextKind]:
    """Return the text encoders that loaders call so."""
    return list(dict.fromkeys(family.text for family in FAMILIES if clip_type in family.text.clip_types))


def clip_types() -> list[str]:
    """Return all names of text encoders."""
    return list(dict.fromkeys(name for family in FAMILIES for name in family.text.clip_types))


def assign(texts: Iterable[TextWeights], kind: TextKind) -> dict[str, TextWeights] | None:
    """Return text encoders by what they are to a family, or None where they are others; CLIP's go by their width."""
    waiting = sorted(texts, key=lambda text: (text.kind, text.size))
    found: dict[str, TextWeights] = {}
    for place, role in enumerate(kind.roles):
        fitting = next((text for text in waiting if _fits(text, role, place)), None)
        if fitting is not None:
            found[role] = fitting
            waiting.remove(fitting)
    missing = set(kind.roles) - set(found) - set(kind.optional)
    return None if waiting or missing else found


def _fits(text: TextWeights, role: str, place: int) -> bool:
    """Return whether an encoder can have a role; a CLIP of an unusual width is taken for CLIP-L where it is alone."""
    if text.kind == "clip" and role.startswith("clip"):
        return role == "clip_l" or place > 0
    return role.startswith(text.kind)


def make_text(texts: Mapping[str, TextWeights], kind: TextKind, source: TextSource) -> CLIP:
    """Return the CLIP of text encoders by role."""
    return kind.make(dict(texts), source)
