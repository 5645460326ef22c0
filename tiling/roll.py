"""The picture moved on its torus: what leaves one side enters the other."""

from __future__ import annotations

import torch
from torch import Tensor

from .axes import Axes

Shift = tuple[int, int]
"""How far down and how far to the right, in lines."""


def offset(images: Tensor, x: float, y: float) -> Tensor:
    """Roll `images` (B, H, W, C) right by the fraction `x` of their width and down by `y` of their height."""
    height, width = images.shape[1:3]
    return torch.roll(images, shifts=(round(y * height), round(x * width)), dims=(1, 2))


def roll(pictures: Tensor, shift: Shift, axes: Axes) -> Tensor:
    """Move `pictures` (..., H, W) on the torus of `axes`: what enters from a shifted repeat is shifted by half.

    Args:
        shift: less than a side each way.
        axes: where neither half_drop nor brick is set, every side counts as one that wraps.
    """
    down, right = shift
    moved = pictures.roll(shift, (-2, -1))
    if axes.brick and down:
        entered = slice(down) if down > 0 else slice(down, None)
        moved[..., entered, :] = moved[..., entered, :].roll(pictures.shape[-1] // 2, -1)
    if axes.half_drop and right:
        entered = slice(right) if right > 0 else slice(right, None)
        moved[..., entered] = moved[..., entered].roll(pictures.shape[-2] // 2, -2)
    return moved
