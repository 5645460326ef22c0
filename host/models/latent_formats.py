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
    latent_rgb_factors: list[list[float]] | None = None
    """Colours of each channel, for previews: red, green, blue from -1 to 1."""
    latent_rgb_factors_bias: list[float] | None = None

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
    latent_rgb_factors = [
        [0.3512, 0.2297, 0.3227],
        [0.3250, 0.4974, 0.2350],
        [-0.2829, 0.1762, 0.2721],
        [-0.2120, -0.2616, -0.7177],
    ]


class SDXL(LatentFormat):
    """Stable Diffusion XL."""

    scale_factor = 0.13025
    latent_rgb_factors = [
        [0.3651, 0.4232, 0.4341],
        [-0.2533, -0.0042, 0.1068],
        [0.1076, 0.1111, -0.0362],
        [-0.3165, -0.2492, -0.2188],
    ]
    latent_rgb_factors_bias = [0.1084, -0.0175, -0.0011]


class Flux(LatentFormat):
    """Flux.1."""

    scale_factor = 0.3611
    shift_factor = 0.1159
    latent_channels = 16
    latent_rgb_factors = [
        [-0.0346, 0.0244, 0.0681],
        [0.0034, 0.0210, 0.0687],
        [0.0275, -0.0668, -0.0433],
        [-0.0174, 0.0160, 0.0617],
        [0.0859, 0.0721, 0.0329],
        [0.0004, 0.0383, 0.0115],
        [0.0405, 0.0861, 0.0915],
        [-0.0236, -0.0185, -0.0259],
        [-0.0245, 0.0250, 0.1180],
        [0.1008, 0.0755, -0.0421],
        [-0.0515, 0.0201, 0.0011],
        [0.0428, -0.0012, -0.0036],
        [0.0817, 0.0765, 0.0749],
        [-0.1264, -0.0522, -0.1103],
        [-0.0280, -0.0881, -0.0499],
        [-0.1262, -0.0982, -0.0778],
    ]
    latent_rgb_factors_bias = [-0.0329, -0.0718, -0.0851]
