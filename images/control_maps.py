"""Control images that need no model: what ControlNets for lines, soft edges, tiles, blur and colours were trained on.

Images are (B, C, H, W) in 0..1. Along an axis that wraps they are continued by their other side, so that the control
image of a texture repeats as the texture does; along others by their edge pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .enlarging import Wraps, continued, resized

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue (ITU-R BT.709)."""

FAINT, LEAST_LINE = 8 / 255, 16 / 255
"""Lines up to the first are left out of what is typical of an image; the second is the least that is taken for it."""

SOFT_SCALES = (1.0, 2.0, 4.0)
"""Widths of the edges that `soft_edges` looks for, as multiples of its radius."""

STRONGEST_EDGES = 0.98
"""Quantile of an image's edges that becomes white."""

LEAST_EDGE = 0.02
"""Edges weaker than this are not stretched to white, so that a flat image stays black."""


def blurred(images: Tensor, radius: float, wraps: Wraps = (False, False)) -> Tensor:
    """Blur images with a Gaussian.

    Args:
        radius: its standard deviation in px, above 0.

    Examples:
        >>> import torch
        >>> from tessera.images.control_maps import blurred
        >>> round(float(blurred(torch.eye(9)[None, None], radius=2.0)[0, 0, 4, 4]), 3)
        0.143
    """
    reach = math.ceil(3 * radius)
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-((places / radius) ** 2) / 2)
    kernel = (kernel / kernel.sum())[None, None, None]
    planes = continued(images, reach, wraps).flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(planes, kernel), kernel.mT)[:, 0].unflatten(0, images.shape[:2])


def lines(images: Tensor, radius: float, wraps: Wraps = (False, False)) -> Tensor:
    """Draw dark lines on a lighter ground white on black, by how much darker a place is than around it.

    The preprocessor known as standard lineart does so with the least of the channels, which misses black on orange.

    Args:
        images: (B, 3, H, W).
        radius: how wide a line may be, in px.

    Returns:
        (B, 1, H, W); a typical line of the image is grey, deeper ones are white.
    """
    grey = torch.einsum("bchw,c->bhw", images, images.new_tensor(LUMINANCE))[:, None]
    depth = (blurred(grey, radius, wraps) - grey).clamp(min=0)
    typical = [each[each > FAINT].median() if bool((each > FAINT).any()) else each.new_zeros(()) for each in depth]
    return (depth / (2 * torch.stack(typical)[:, None, None, None].clamp(min=LEAST_LINE))).clamp(max=1)


def soft_edges(images: Tensor, radius: float, wraps: Wraps = (False, False)) -> Tensor:
    """Draw edges as soft grey lines, for ControlNets that were trained on HED or PiDiNet.

    The gradient, times the width of the blur before it (Lindeberg 1998: edges of every width count alike), of the
    colour in which it is strongest; of three widths, the mean.

    Args:
        images: (B, 3, H, W).
        radius: width of the finest edges, in px.

    Returns:
        (B, 1, H, W); an image's strongest edges are white.
    """
    found = torch.stack([_gradient(images, radius * scale, wraps) for scale in SOFT_SCALES]).mean(0)
    # torch.quantile takes no more than 2^24 values.
    values = found.flatten(1)
    white = values.kthvalue(math.ceil(STRONGEST_EDGES * values.shape[1]), dim=1).values.clamp(min=LEAST_EDGE)
    return (found / white[:, None, None, None]).clamp(max=1)


def _gradient(images: Tensor, radius: float, wraps: Wraps) -> Tensor:
    surface = continued(blurred(images, radius, wraps), 1, wraps)
    right = (surface[..., 1:-1, 2:] - surface[..., 1:-1, :-2]) / 2
    down = (surface[..., 2:, 1:-1] - surface[..., :-2, 1:-1]) / 2
    return radius * torch.hypot(right, down).amax(1, keepdim=True)


def tiles(images: Tensor, factor: float, wraps: Wraps = (False, False)) -> Tensor:
    """Take the detail out of images, as tile ControlNets want it: shrunk by `factor`, and enlarged again."""
    height, width = images.shape[-2:]
    return resized(_cells(images, factor), (height, width), wraps).clamp(0, 1)


def colour_grid(images: Tensor, cell: float, wraps: Wraps = (False, False)) -> Tensor:
    """Draw images as cells of their mean colour, `cell` px wide, as colour adapters want them."""
    return F.interpolate(_cells(images, cell), size=images.shape[-2:], mode="nearest-exact")


def _cells(images: Tensor, cell: float) -> Tensor:
    """Shrink images to one px for each cell; cells of less than a px are one."""
    height, width = (max(1, round(side / max(1.0, cell))) for side in images.shape[-2:])
    return F.adaptive_avg_pool2d(images, (height, width))


class ControlMap(NamedTuple):
    """A method, and what its size means.

    Attributes:
        draw: (images, size, wraps) to (B, 1 or 3, H, W).
        size: its usual size.
    """

    draw: Callable[[Tensor, float, Wraps], Tensor]
    size: float


CONTROL_MAPS = {
    "lines": ControlMap(lines, 6.0),
    "soft_edges": ControlMap(soft_edges, 1.0),
    "tile": ControlMap(tiles, 8.0),
    "blur": ControlMap(blurred, 8.0),
    "color_grid": ControlMap(colour_grid, 64.0),
}


def control_map(image: Tensor, method: str, size: float, wraps: Wraps) -> Tensor:
    """Return the control image (B, H, W, 3) of images (B, H, W, C).

    Args:
        method: a key of `CONTROL_MAPS`.
        size: in px, or the method's own where it is 0.
        wraps: see `Wraps`.
    """
    draw, usual = CONTROL_MAPS[method]
    drawn = draw(rgb(image).movedim(-1, 1), size or usual, wraps)
    return drawn.expand(-1, 3, -1, -1).movedim(1, -1)


def rgb(image: Tensor) -> Tensor:
    """Return images (B, H, W, C) with three channels, without their transparency."""
    return image[..., :3].float() if image.shape[-1] > 2 else image[..., :1].float().expand(-1, -1, -1, 3)


def facing_left(normal: Tensor) -> Tensor:
    """Return OpenGL's normals (B, H, W, 3) as ControlNets read them: blue is front, red is left, green is top."""
    return torch.cat((1 - normal[..., :1], normal[..., 1:]), -1)
