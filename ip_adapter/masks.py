"""Where images act: masks, averaged to the grid of each attention."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

TOLERANCE = 0.05
"""Relative difference of aspect up to which a mask and an image count as the same shape."""

UNITS = (8, 16)
"""Pixels along a side of one latent: of most VAEs, and of those that compress more."""


def one_mask(mask: Tensor) -> Tensor:
    """Return the one mask (H, W) in 0..1 of a host's MASK, (H, W) or (1, H, W).

    Raises:
        ValueError: the mask is a batch, or nowhere above 0, or not finite.
    """
    plane = mask.float().reshape(-1, *mask.shape[-2:])
    if plane.shape[0] != 1:
        raise ValueError(f"The mask is a batch of {plane.shape[0]}; an image takes one mask, select one of them.")
    if not torch.isfinite(plane).all():
        raise ValueError("The mask has values that are not finite; expected 0 to 1.")
    if not (plane > 0).any():
        raise ValueError(
            "The mask is black everywhere, so the image would act nowhere; paint where it should act white, or remove "
            "the mask (Load Image gives a black mask for images without transparency)."
        )
    return plane[0].clamp(0, 1)


def fit(mask: Tensor, size: tuple[int, int], unit: int = UNITS[0]) -> Tensor:
    """Crop a mask (H, W) to the part of its image that latents (height, width) cover.

    Encoding crops an image to whole latents, at the middle (ComfyUI's `VAE.vae_encode_crop_pixels`); a mask of the
    uncropped image is cropped in the same way, also when the latents have been upscaled since. Other masks cover the
    same as the latents, in any resolution.

    Args:
        mask: the mask.
        size: of the latents.
        unit: pixels along a side of one latent of the model; `UNITS` are tried, too.

    Raises:
        ValueError: the mask has another aspect.
    """
    (h, w), (height, width) = mask.shape, size
    near = abs(h * width - w * height) <= TOLERANCE * w * height
    for each in (unit, *UNITS):
        rows, columns = h // each, w // each
        same = each == unit and (rows, columns) == (height, width)
        # A mask of about the right shape covers the whole image, unless it has exactly the uncropped size.
        if same or (not near and rows and columns and rows * width == columns * height):
            return _middle(mask, rows * each, columns * each)
    if near:
        return mask
    raise ValueError(
        f"The mask is {w} x {h}, but the image has the aspect of {width} x {height}; use a mask of the image's shape, "
        "in any resolution."
    )


def _middle(mask: Tensor, height: int, width: int) -> Tensor:
    top, left = (mask.shape[0] - height) // 2, (mask.shape[1] - width) // 2
    return mask[top : top + height, left : left + width]


def pool(masks: list[Tensor | None], grid: tuple[int, int]) -> Tensor | None:
    """Average masks (H, W) over the cells of a grid (h, w): (n, h * w), or None when no image has one."""
    if all(mask is None for mask in masks):
        return None
    planes = [torch.ones(1, *grid) if mask is None else _area(mask, grid) for mask in masks]
    return rearrange(torch.cat(planes), "n h w -> n (h w)")


def _area(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    return F.interpolate(mask[None, None], grid, mode="area")[0]
