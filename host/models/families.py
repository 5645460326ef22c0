"""Denoisers and VAEs of the supported families, from weights in any known layout."""

from __future__ import annotations

from typing import Any

import torch

from ..layouts.ldm_layout import convert_flux
from ..layouts.ldm_unet import convert_unet
from ..layouts.ldm_vae import convert_vae
from ..layouts.state_dicts import StateDict, name_keys, refuse_quantized
from ..runtime import devices
from ..runtime.patcher import ModelPatcher
from ..runtime.running import make_patcher
from . import latent_formats
from .architectures import build_flux, build_unet, build_vae
from .model_base import SD15, SDXL, BaseModel, Flux, ModelType
from .vae import VAE

SUPPORTED = "Stable Diffusion 1.5, SDXL or Flux.1"
SCHNELL = {"shift": 1.0, "multiplier": 1.0}


def diffusers_denoiser(sd: StateDict) -> StateDict:
    """Return a denoiser (keys without prefix) in diffusers' layout.

    Raises:
        ValueError: it is of no supported architecture.
    """
    refuse_quantized(sd)
    if "input_blocks.0.0.weight" in sd:
        return convert_unet(sd)
    if "double_blocks.0.img_attn.qkv.weight" in sd:
        return convert_flux(sd)
    if is_flux(sd) or "down_blocks.0.resnets.0.conv1.weight" in sd:
        return sd
    raise ValueError(f"the architecture is not supported: it has {name_keys(sd)}, expected {SUPPORTED}")


def is_flux(sd: StateDict) -> bool:
    """Return whether weights in diffusers' layout are Flux's transformer."""
    return "x_embedder.weight" in sd and "single_transformer_blocks.0.proj_mlp.weight" in sd


def make_model(
    sd: StateDict,
    config: dict[str, Any] | None = None,
    model_type: ModelType | None = None,
    sampling_settings: dict[str, Any] | None = None,
    scale_factor: float | None = None,
) -> ModelPatcher:
    """Return the MODEL of a denoiser's weights in diffusers' layout.

    Args:
        sd: the weights.
        config: of diffusers' module; derived from shapes when not given.
        model_type: the family's by default.
        sampling_settings: of the noise schedule.
        scale_factor: of the VAE where it differs from the family's.
    """
    stored = next(iter(sd.values())).dtype
    if is_flux(sd):
        flux = build_flux(sd, devices.model_dtype(stored, wide_range=True), config)
        schnell = model_type is None and "time_text_embed.guidance_embedder.linear_1.weight" not in sd
        return make_patcher(_base(Flux, flux, *((ModelType.FLOW, SCHNELL) if schnell else (model_type, None)), None))
    unet = build_unet(sd, devices.model_dtype(stored), config)
    family = SDXL if "add_embedding.linear_1.weight" in sd else SD15
    return make_patcher(_base(family, unet, model_type, sampling_settings, scale_factor))


def _base(
    family: type[BaseModel],
    module: torch.nn.Module,
    model_type: ModelType | None,
    settings: dict[str, Any] | None,
    scale_factor: float | None,
) -> BaseModel:
    latent_format: type[latent_formats.LatentFormat] = family.default_latent_format
    return family(module, model_type, settings, latent_format(scale_factor))


def make_vae(sd: StateDict, config: dict[str, Any] | None = None) -> VAE:
    """Return the VAE of weights (keys without prefix) in the original or diffusers' layout."""
    refuse_quantized(sd)
    return VAE(build_vae(convert_vae(sd), devices.vae_dtype(), config))
