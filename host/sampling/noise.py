"""The noise of a run, ComfyUI's to the bit on the CPU.

Drop-in replacement for parts of `comfy.sample` and k-diffusion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

NoiseSampler = Callable[[Any, Any], Tensor]


def prepare_noise(latent_image: Tensor, seed: int, noise_inds: Sequence[int] | None = None) -> Tensor:
    """Return standard normal noise in the latents' shape.

    Seeds torch's own generator, so that what samplers draw from it follows the seed too.

    Args:
        latent_image: (B, C, H, W).
        seed: 0 to 2**64 - 1.
        noise_inds: for each latent the index of its noise in the batch that it was taken from.
    """
    generator = torch.manual_seed(seed)
    if noise_inds is None:
        return torch.randn(latent_image.shape, generator=generator).to(latent_image.dtype)
    shape = (1, *latent_image.shape[1:])
    drawn = [torch.randn(shape, generator=generator) for _ in range(max(noise_inds) + 1)]
    return torch.cat([drawn[i] for i in noise_inds]).to(latent_image.dtype)


def prepare_empty_noise(latent_image: Tensor) -> Tensor:
    """Return zeros in the latents' shape."""
    return torch.zeros_like(latent_image, device="cpu")


def fix_empty_latent_channels(model: Any, latent_image: Tensor, downscale_ratio_spacial: int | None = None) -> Tensor:
    """Return empty latents in the model's channels and size; others unchanged.

    Args:
        model: a `ModelPatcher`.
        latent_image: (B, C, H, W).
        downscale_ratio_spacial: pixels per latent cell for which an empty latent was made.

    Raises:
        ValueError: the latents hold an image and have another number of channels than the model.
    """
    latent_format = model.get_model_object("latent_format")
    channels, cell = latent_format.latent_channels, latent_format.spacial_downscale_ratio
    if torch.count_nonzero(latent_image) > 0:
        if latent_image.shape[1] != channels:
            found = latent_image.shape[1]
            raise ValueError(f"the latent has {found} channels, the model works on {channels}; use the model's own VAE")
        return latent_image
    latent_image = latent_image[:, :1].repeat(1, channels, 1, 1)
    if downscale_ratio_spacial not in (None, cell):
        size = [round(side * downscale_ratio_spacial / cell) for side in latent_image.shape[2:]]
        latent_image = F.interpolate(latent_image, size=size, mode="nearest-exact")
    return latent_image


def default_noise_sampler(x: Tensor, seed: int | None = None) -> NoiseSampler:
    """Return independent noise at every step.

    On the CPU the seed is one higher, or it would repeat the initial noise.
    """
    generator = None
    if seed is not None:
        generator = torch.Generator(device=x.device)
        generator.manual_seed(seed + 1 if x.device.type == "cpu" else seed)

    def sample(sigma: Any, sigma_next: Any) -> Tensor:
        return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)

    return sample


class BrownianTreeNoiseSampler:
    """Increments of one Brownian path over sigma, so that the noise does not depend on the steps (k-diffusion).

    Args:
        x: latents, for shape, device and dtype.
        sigma_min: the lowest sigma of the run above zero.
        sigma_max: its highest sigma.
        seed: names the path.
        cpu: draw on the CPU, which gives the same path on every device.
    """

    def __init__(
        self, x: Tensor, sigma_min: Tensor, sigma_max: Tensor, seed: int | None = None, cpu: bool = True
    ) -> None:
        from torchsde import BrownianTree

        self.x = x
        self.device = torch.device("cpu") if cpu else x.device
        entropy = int(torch.randint(0, 2**63 - 1, ()).item()) if seed is None else seed
        start = torch.zeros_like(x, device=self.device)
        t0, t1 = (torch.as_tensor(sigma).to(self.device) for sigma in (sigma_min, sigma_max))
        self.tree = BrownianTree(t0, start, t1, entropy=entropy)

    def __call__(self, sigma: Any, sigma_next: Any) -> Tensor:
        times = torch.stack([torch.as_tensor(t).to(self.device, torch.float32) for t in (sigma, sigma_next)])
        low, high = times.sort().values
        sign = 1.0 if times[0] < times[1] else -1.0
        increment: Any = self.tree(low, high)
        return (increment * (sign / (high - low).sqrt())).to(self.x)
