"""Images that a denoiser sees beside the latents: as more channels of its input, or encoded (unCLIP)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..images.latent_resize import resize_latents

BLANK = (0.8223, -0.6876, 0.6364, 0.1380)
"""A grey image in the latents of Stable Diffusion 1, which inpainting models are shown where there is no image."""

PIXELS = 8
"""Pixels along the side of one latent, whose mask Flux.1 Fill sees in full."""


def spread_to_batch_size(tensor: Tensor, batch_size: int) -> Tensor:
    """Return a batch in another size, each of its entries repeated or left out evenly."""
    count = tensor.shape[0]
    if count == batch_size:
        return tensor
    if batch_size <= 1:
        return tensor[:batch_size]
    if batch_size < count:
        scale = (count - 1) / (batch_size - 1)
        places = [min(round(index * scale), count - 1) for index in range(batch_size)]
    else:
        scale = count / batch_size
        places = [min(math.floor((index + 0.5) * scale), count - 1) for index in range(batch_size)]
    return tensor[places]


def _fitted(latents: Tensor, noise: Tensor) -> Tensor:
    if latents.shape[1:] != noise.shape[1:]:
        latents = resize_latents(latents, noise.shape[-1], noise.shape[-2], "bilinear", "center")
    return spread_to_batch_size(latents, noise.shape[0])


def inpainting_channels(process_in: Any, noise: Tensor, device: Any, **conds: Any) -> Tensor:
    """Return the mask and the masked image (B, 1 + C, H, W) that inpainting UNets see.

    Args:
        process_in: scales the VAE's latents to the denoiser's.
        noise: of the run (B, C, H, W).
        device: of the run.
        conds: `concat_latent_image` and `concat_mask` of the conditioning, else `latent_image` and `denoise_mask` of
            the run, which are in the denoiser's scale already.
    """
    mask = conds.get("concat_mask", conds.get("denoise_mask"))
    image = conds.get("concat_latent_image")
    image = conds.get("latent_image") if image is None else process_in(image)
    if mask is None or image is None:
        blank = torch.tensor(BLANK[: noise.shape[1]])[:, None, None]
        return torch.cat([torch.ones_like(noise)[:, :1], torch.ones_like(noise) * blank.to(noise)], 1)
    mask = mask[:, :1] if mask.ndim == noise.ndim else mask
    mask = mask.reshape(-1, 1, *mask.shape[-2:])
    if mask.shape[-2:] != noise.shape[-2:]:
        mask = resize_latents(mask, noise.shape[-1], noise.shape[-2], "bilinear", "center")
    mask = spread_to_batch_size(mask.round(), noise.shape[0])
    return torch.cat([mask.to(device), _fitted(image, noise).to(device)], 1)


def edit_channels(noise: Tensor, device: Any, **conds: Any) -> Tensor:
    """Return the image (B, C, H, W) that edit UNets (InstructPix2Pix) see, in the VAE's scale."""
    image = conds.get("concat_latent_image")
    return torch.zeros_like(noise) if image is None else _fitted(image.to(device), noise)


def flux_channels(process_in: Any, channels: int, noise: Tensor, device: Any, **conds: Any) -> Tensor:
    """Return what Flux.1 Depth and Canny (B, C, H, W) and Fill (B, C + 64, H, W) see beside the latents.

    Args:
        process_in: scales the VAE's latents to the denoiser's.
        channels: of latents that the denoiser takes.
        noise: of the run (B, C, H, W).
        device: of the run.
        conds: of the conditioning and of the run, see `inpainting_channels`.
    """
    image = conds.get("concat_latent_image")
    image = torch.zeros_like(noise) if image is None else image
    width, height = noise.shape[-1], noise.shape[-2]
    fitting = resize_latents(image.to(device), width, height, "bilinear", "center")
    image = process_in(spread_to_batch_size(fitting, len(noise)))
    if channels <= 2 * noise.shape[1]:
        return image
    mask = conds.get("concat_mask", conds.get("denoise_mask"))
    mask = torch.ones_like(noise)[:, :1] if mask is None else mask
    mask = mask.mean(1, keepdim=True).to(device)
    mask = resize_latents(mask, width * PIXELS, height * PIXELS, "bilinear", "center")
    mask = F.pixel_unshuffle(mask, PIXELS)
    return torch.cat([image, spread_to_batch_size(mask, len(noise))], 1)


class NoiseAugmentor:
    """Adds noise to image embeddings, as unCLIP models were trained (Ramesh et al. 2022, arXiv:2204.06125).

    Args:
        mean, deviation: of embeddings in training (1, D).
    """

    LEVELS = 1000

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        self.mean, self.deviation = mean, deviation

    def __call__(self, embedding: Tensor, part: float, seed: int) -> Tensor:
        """Return embeddings (1, D) noised to a part of the levels, with the level's own embedding (1, 2 D)."""
        from diffusers.models.embeddings import get_timestep_embedding

        level = round((self.LEVELS - 1) * part)
        noise = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(seed))
        signal = _signal(level, self.LEVELS)
        scaled = (embedding - self.mean) / self.deviation
        noised = (signal**0.5 * scaled + (1 - signal) ** 0.5 * noise) * self.deviation + self.mean
        time = torch.tensor([float(level)])
        return torch.cat([noised, get_timestep_embedding(time, self.mean.shape[-1], True, 0)], 1)


def _signal(level: int, levels: int) -> float:
    """Return the part of the variance that is left of an embedding at a level of the squared cosine schedule."""

    def alpha_bar(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = (1 - alpha_bar((index + 1) / levels) / alpha_bar(index / levels) for index in range(level + 1))
    return math.prod(1 - min(beta, 0.999) for beta in betas)


def unclip_embedding(
    images: list[dict[str, Any]], augmentor: NoiseAugmentor, merge: float = 0.0, seed: int = 0
) -> Tensor:
    """Return what an unCLIP model sees (1, 2 D) of encoded images, each with its strength and noise.

    Args:
        images: `clip_vision_output`, `strength` and `noise_augmentation` of each.
        augmentor: adds the noise.
        merge: noise of the sum of several.
        seed: of the noise.
    """
    seen = [
        augmentor(embedding[None].cpu(), each["noise_augmentation"], seed) * each["strength"]
        for each in images
        for embedding in each["clip_vision_output"].image_embeds
    ]
    if len(seen) == 1:
        return seen[0]
    # ComfyUI draws this noise anew in every run; here a seed gives the same image.
    return augmentor(torch.stack(seen).sum(0)[:, : augmentor.mean.shape[-1]], merge, seed)
