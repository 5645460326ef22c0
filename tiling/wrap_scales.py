"""Wrapped margins of one texture at several scales: image, mask and latents share a geometry."""

from __future__ import annotations

from torch import Tensor

from .wrap import Geometry, crop, pad


def pad_plane(x: Tensor, geometry: Geometry) -> Tensor:
    """Pad `x` (..., H, W) by the margins of `geometry`, scaled to its size.

    Raises:
        ValueError: the margins are not whole pixels there.
    """
    return pad(x, geometry.at((x.shape[-2], x.shape[-1]), padded=False))


def crop_plane(x: Tensor, geometry: Geometry, blend: float = 0.0) -> Tensor:
    """Undo `pad_plane` on `x` (..., H, W), whatever it was scaled to; `blend` as in `crop`.

    Raises:
        ValueError: the texture is not a whole number of pixels there.
    """
    return crop(x, geometry.at((x.shape[-2], x.shape[-1]), padded=True), blend)


def pad_image(image: Tensor, geometry: Geometry) -> Tensor:
    """Pad `image` (B, H, W, C) as `pad_plane` does."""
    return pad_plane(image.movedim(-1, -3), geometry).movedim(-3, -1)


def crop_image(image: Tensor, geometry: Geometry, blend: float = 0.0) -> Tensor:
    """Crop `image` (B, H, W, C) as `crop_plane` does."""
    return crop_plane(image.movedim(-1, -3), geometry, blend).movedim(-3, -1)
