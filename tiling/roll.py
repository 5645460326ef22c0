"""Offset: the picture moved on its torus, what leaves one side enters the other."""

from __future__ import annotations

import torch
from torch import Tensor


def offset(images: Tensor, x: float, y: float) -> Tensor:
    """Roll `images` (B, H, W, C) right by the fraction `x` of their width and down by `y` of their height."""
    height, width = images.shape[1:3]
    return torch.roll(images, shifts=(round(y * height), round(x * width)), dims=(1, 2))
