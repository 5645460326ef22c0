"""Scales between a VAE's latents and the denoiser's (drop-in replacement for `comfy.latent_formats`)."""

from __future__ import annotations

import torch


class LatentFormat:
    """`(latent - shift_factor) * scale_factor` going in, its inverse coming out.

    Args:
        scale_factor: the VAE's own factor where it differs from the family's.
    """

    scale_factor = 1.0
    shift_factor = 0.0
    latent_channels = 4
    latent_dimensions = 2
    spacial_downscale_ratio = 8

    def __init__(self, scale_factor: float | None = None) -> None:
        if scale_factor is not None:
            self.scale_factor = scale_factor

    def process_in(self, latent: torch.Tensor) -> torch.Tensor:
        """Scale the VAE's latents to the denoiser's."""
        return (latent - self.shift_factor) * self.scale_factor

    def process_out(self, latent: torch.Tensor) -> torch.Tensor:
        """Scale the denoiser's latents to the VAE's."""
        return latent / self.scale_factor + self.shift_factor


class SD15(LatentFormat):
    """Stable Diffusion 1 and 2."""

    scale_factor = 0.18215


class SDXL(LatentFormat):
    """Stable Diffusion XL."""

    scale_factor = 0.13025


class Flux(LatentFormat):
    """Flux.1."""

    scale_factor = 0.3611
    shift_factor = 0.1159
    latent_channels = 16
