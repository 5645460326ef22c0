"""Maps of textures as images: what `maps` computes on surfaces (B, H, W), from and to images (B, H, W, C)."""

from __future__ import annotations

from torch import Tensor

from . import maps
from .axes import Axes


def normal_map(image: Tensor, relief: float, y_up: bool, axes: Axes) -> Tensor:
    """Return the normal map (B, H, W, 3) of an image's luminance.

    Args:
        image: (B, H, W, C), 0..1.
        relief: px between black and white.
        y_up: whether green points up (OpenGL) or down (DirectX).
        axes: how the texture repeats.
    """
    return _first_repeat(maps.normals(_surface(image, axes), relief, y_up, axes), image)


def height_map(normal: Tensor, y_up: bool, axes: Axes) -> tuple[Tensor, float]:
    """Return the heights (B, H, W, 3) of a normal map, and the px between black and white.

    A batch shares the largest relief, so that one strength belongs to all of it.

    Raises:
        ValueError: the image has fewer than 3 channels.
    """
    if normal.shape[-1] < 3:
        raise ValueError(f"A normal map has 3 channels, but the image has {normal.shape[-1]}; connect a normal map.")
    height, relief = maps.heights(maps.rectangle(normal.float(), axes), y_up, axes)
    strength = float(relief.max())
    shares = (relief / max(strength, maps.LEAST_RELIEF)).to(height)[:, None, None]
    return _first_repeat(_grey_image((height - 0.5) * shares + 0.5), normal), strength


def occlusion_map(image: Tensor, relief: float, radius: int, axes: Axes) -> Tensor:
    """Return the ambient occlusion (B, H, W, 3) of an image's luminance, looking `radius` px far."""
    shade = maps.occlusion(_surface(image, axes), relief, radius, axes)
    return _first_repeat(_grey_image(shade), image)


def _surface(image: Tensor, axes: Axes) -> Tensor:
    return maps.grey(maps.rectangle(image.float(), axes))


def _grey_image(values: Tensor) -> Tensor:
    return values[..., None].repeat(1, 1, 1, 3)


def _first_repeat(computed: Tensor, image: Tensor) -> Tensor:
    """Cut the first of the repeats that a map was computed on."""
    return computed[:, : image.shape[1], : image.shape[2]]
