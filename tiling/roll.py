"""Images rolled on their torus."""

from __future__ import annotations

import torch
from torch import Tensor

from .axes import Axes

Shift = tuple[int, int]
"""Rows down and columns to the right."""


def offset(images: Tensor, x: float, y: float) -> Tensor:
    """Roll `images` (B, H, W, C) right by the fraction `x` of their width and down by `y` of their height."""
    height, width = images.shape[1:3]
    return torch.roll(images, shifts=(round(y * height), round(x * width)), dims=(1, 2))


def roll(images: Tensor, shift: Shift, axes: Axes) -> Tensor:
    """Roll `images` (..., H, W) on the torus of `axes`; lines that enter from a shifted repeat are shifted by half.

    Args:
        shift: less than a side along each axis.
        axes: only half_drop and brick matter; both axes wrap.
    """
    down, right = shift
    moved = images.roll(shift, (-2, -1))
    if axes.brick and down:
        entered = slice(down) if down > 0 else slice(down, None)
        moved[..., entered, :] = moved[..., entered, :].roll(images.shape[-1] // 2, -1)
    if axes.half_drop and right:
        entered = slice(right) if right > 0 else slice(right, None)
        moved[..., entered] = moved[..., entered].roll(images.shape[-2] // 2, -2)
    return moved
