"""A host's LATENT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

PIXELS_BY_CHANNELS = {64: 32, 128: 16}
"""Image pixels along the side of one latent, where they are not 8, for latents of images with so many channels:
HunyuanImage 2.1 and Flux.2."""


def pixels_per_latent(latent: Mapping[str, Any]) -> int:
    """Return the number of image pixels along the side of one latent.

    Args:
        latent: a LATENT; empty ones state it, for others it follows from the number of channels.
    """
    stated = latent.get("downscale_ratio_spacial")
    if stated:
        return int(stated)
    samples = latent["samples"]
    return PIXELS_BY_CHANNELS.get(samples.shape[1], 8) if samples.ndim == 4 else 8


def with_planes(latent: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Return a LATENT whose samples and noise mask (..., H, W) went through `change`."""
    planes = {name: latent[name] for name in ("samples", "noise_mask") if latent.get(name) is not None}
    return dict(latent) | {name: change(each) for name, each in planes.items()}


def to_vae(guider: Any, latents: Tensor) -> Tensor:
    """Scale latents (B, C, H, W) from those of a guider's model to those of its VAE."""
    return guider.model_patcher.model.process_latent_out(latents)
