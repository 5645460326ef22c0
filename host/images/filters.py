"""Blurring, sharpening, blending and quantizing of images (B, H, W, C) in 0..1, with ComfyUI's numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_kernel(size: int, sigma: float) -> Tensor:
    """Return a Gaussian (size, size) whose side spans -1..1, with a sum of 1."""
    axis = torch.linspace(-1, 1, size)
    distance = torch.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    kernel = torch.exp(-(distance**2) / (2.0 * sigma**2))
    return kernel / kernel.sum()
