"""Images with a margin that is to be painted."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

GREY = 0.5
FILLS = ("grey", "edge", "mirror")
MULTIPLE = 8
"""Margins are multiples of it, in px, as latents need them."""

Margins = tuple[int, int, int, int]
"""Left, right, top, bottom, in px."""


def margins(size: tuple[int, int], factor: float, x: float, y: float) -> Margins:
    """Return the margins that make an image `factor` times as wide and high, in multiples of 8 px.

    Args:
        size: (height, width) in px.
        factor: at least 1.
        x, y: place of the image in the larger one, 0 (left, top) to 1.

    Examples:
        >>> from tessera.images.outpaint import margins
        >>> margins((512, 768), 1.5, x=0.5, y=0.5)
        (192, 192, 128, 128)
        >>> margins((512, 768), 1.5, x=0.0, y=1.0)
        (0, 384, 256, 0)
    """
    height, width = size
    left, right = _split(width, factor, x)
    top, bottom = _split(height, factor, y)
    return left, right, top, bottom


def _split(side: int, factor: float, place: float) -> tuple[int, int]:
    added = round(side * (factor - 1) / MULTIPLE)
    before = math.floor(added * place + 0.5)
    return before * MULTIPLE, (added - before) * MULTIPLE


def padded(image: Tensor, around: Margins, fill: str) -> Tensor:
    """Return images (B, H, W, C) with margins.

    Args:
        fill: one of `FILLS`: middle grey, opaque where images have transparency, the edge's pixels drawn out, or the
            image mirrored.
    """
    planes = image.movedim(-1, 1)
    if fill == "grey":
        colours, alpha = (F.pad(part, around, value=v) for part, v in ((planes[:, :3], GREY), (planes[:, 3:], 1.0)))
        return torch.cat((colours, alpha), 1).movedim(1, -1)
    for axis, before, after in ((-1, *around[:2]), (-2, *around[2:])):
        length = planes.shape[axis]
        places = torch.arange(-before, length + after, device=image.device)
        if fill == "mirror":
            places = places % (2 * length)
            places = torch.where(places < length, places, 2 * length - 1 - places)
        planes = planes.index_select(axis, places.clamp(0, length - 1))
    return planes.movedim(1, -1)


def margin_mask(size: tuple[int, int], around: Margins, feather: int) -> Tensor:
    """Return the mask (1, H, W) of a margin: 1 in it, fading over `feather` px into the image, and 0 inside.

    Sides without a margin do not fade. The fade is smooth at both ends (cosine), and is shortened where it would
    reach the middle of the image.

    Args:
        size: (height, width) of the image, in px.
        around: its margins.
    """
    left, right, top, bottom = around
    height, width = size
    columns, rows = _distance(width, left > 0, right > 0), _distance(height, top > 0, bottom > 0)
    inside = torch.minimum(rows[:, None], columns[None, :])
    reach = min(feather, *(side // 2 for side in size))
    share = torch.ones_like(inside) if reach == 0 else (inside / reach).clamp(max=1)
    fading = (1 + torch.cos(math.pi * share)) / 2
    return F.pad(fading, around, value=1.0)[None]


def _distance(length: int, before: bool, after: bool) -> Tensor:
    """Return (length,): how far the middle of each px is from the ends that have a margin."""
    places = torch.arange(length) + 0.5
    far = torch.full_like(places, math.inf)
    return torch.minimum(places if before else far, length - places if after else far)
