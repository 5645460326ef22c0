"""Where images act: masks, averaged to the grid of each attention."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TOLERANCE = 0.05
"""Relative difference of aspect up to which a mask and a picture are taken to have the same shape."""


def one_mask(mask: Tensor) -> Tensor:
    """The mask (H, W) in 0..1 of a host's MASK, (H, W) or (1, H, W).

    Raises:
        ValueError: it is a batch, or nowhere above 0, or not finite.
    """
    plane = mask.float().reshape(-1, *mask.shape[-2:])
    if plane.shape[0] != 1:
        raise ValueError(f"The mask is a batch of {plane.shape[0]}; an image takes one mask, select one of them.")
    if not torch.isfinite(plane).all():
        raise ValueError("The mask holds values that are no numbers; expected 0 to 1.")
    if not (plane > 0).any():
        raise ValueError(
            "The mask is black everywhere, so the image would act nowhere; paint where it shall act white, or take the "
            "mask away (Load Image gives a black mask for pictures without transparency)."
        )
    return plane[0].clamp(0, 1)


def check_aspect(mask: Tensor, size: tuple[int, int]) -> None:
    """Raise ValueError when a mask (H, W) has another aspect than a picture of `size` (height, width)."""
    (h, w), (height, width) = mask.shape, size
    if abs(h * width - w * height) > TOLERANCE * w * height:
        raise ValueError(
            f"The mask is {w} x {h}, but the picture has the aspect of {width} x {height}; use a mask of the picture's "
            "shape, in any resolution."
        )


def pool(masks: list[Tensor | None], grid: tuple[int, int]) -> Tensor | None:
    """Average masks (H, W) over the cells of a grid (h, w): (n, h * w), or None when no image has one."""
    if all(mask is None for mask in masks):
        return None
    planes = [torch.ones(1, *grid) if mask is None else _area(mask, grid) for mask in masks]
    return torch.cat(planes).flatten(1)


def _area(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    return F.interpolate(mask[None, None], grid, mode="area")[0]
