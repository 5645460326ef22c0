"""Blurring, sharpening, blending and quantizing of images (B, H, W, C) in 0..1, with ComfyUI's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def gaussian_kernel(size: int, sigma: float) -> Tensor:
    """Return a Gaussian (size, size) whose side spans -1..1, with a sum of 1."""
    axis = torch.linspace(-1, 1, size)
    distance = torch.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    kernel = torch.exp(-(distance**2) / (2.0 * sigma**2))
    return kernel / kernel.sum()


def blur(images: Tensor, radius: int, sigma: float) -> Tensor:
    """Return images blurred by `gaussian_kernel` of `2 * radius + 1` pixels."""
    return convolve(images, gaussian_kernel(2 * radius + 1, sigma), radius)


def sharpen(images: Tensor, radius: int, sigma: float, alpha: float) -> Tensor:
    """Return images with `10 * alpha` times the difference from their blurred version added, clipped."""
    kernel = gaussian_kernel(2 * radius + 1, sigma) * -(alpha * 10)
    kernel[radius, radius] += 1.0 - kernel.sum()
    return convolve(images, kernel, radius).clamp(0, 1)


def convolve(images: Tensor, kernel: Tensor, radius: int) -> Tensor:
    """Return images convolved with a kernel, mirrored at their edges."""
    channels = images.shape[-1]
    padded = F.pad(images.movedim(-1, 1), (radius,) * 4, "reflect")
    weight = kernel.to(images).expand(channels, 1, -1, -1)
    return F.conv2d(padded, weight, groups=channels).movedim(1, -1)


def _soft_light(one: Tensor, two: Tensor) -> Tensor:
    lit = torch.where(one <= 0.25, ((16 * one - 12) * one + 4) * one, torch.sqrt(one))
    return torch.where(two <= 0.5, one - (1 - 2 * two) * one * (1 - one), one + (2 * two - 1) * (lit - one))


BLENDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "normal": lambda one, two: two,
    "multiply": lambda one, two: one * two,
    "screen": lambda one, two: 1 - (1 - one) * (1 - two),
    "overlay": lambda one, two: torch.where(one <= 0.5, 2 * one * two, 1 - 2 * (1 - one) * (1 - two)),
    "soft_light": _soft_light,
    "difference": lambda one, two: one - two,
}
"""Ways to lay a second image over a first."""

DITHERS = ["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"]


def quantize(images: Tensor, colors: int, dither: str) -> Tensor:
    """Return images in at most `colors` colours each; `dither` is one of `DITHERS`."""
    from PIL import Image

    made = torch.zeros_like(images)
    for index, image in enumerate(images):
        picture = Image.fromarray((image * 255).to(torch.uint8).cpu().numpy(), mode="RGB")
        palette = picture.quantize(colors=colors)
        if dither.startswith("bayer"):
            picture = Image.fromarray(
                _bayer(np.asarray(picture), len(palette.getpalette() or []) // 3, int(dither[6:]))
            )
        method = Image.Dither.FLOYDSTEINBERG if dither == "floyd-steinberg" else Image.Dither.NONE
        found = np.array(picture.quantize(palette=palette, dither=method).convert("RGB"))
        made[index] = torch.from_numpy(found).to(made) / 255
    return made


def _bayer(pixels: NDArray[np.uint8], colors: int, order: int) -> NDArray[np.uint8]:
    """Return pixels (H, W, 3) with an ordered pattern added, as wide as the step between colours."""
    pattern = 2 * 256 / colors * _bayer_matrix(int(math.log2(order))) + 0.5
    repeats = [math.ceil(side / pattern.shape[0]) for side in pixels.shape[:2]]
    tiled = np.tile(pattern, repeats)[: pixels.shape[0], : pixels.shape[1], None]
    return np.clip(pixels.astype(np.float32) + tiled.astype(np.float32), 0, 255).astype(np.uint8)


def _bayer_matrix(power: int) -> NDArray[np.float32]:
    if power == 0:
        return np.zeros((1, 1), np.float32)
    cells = 4**power
    smaller = cells * _bayer_matrix(power - 1)
    return np.block([[smaller - 1.5, smaller + 0.5], [smaller + 1.5, smaller - 0.5]]) / cells
