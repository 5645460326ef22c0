"""Large images through a model in tiles that overlap and fade out.

Drop-in replacement for `comfy.utils.tiled_scale`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

PASSES = ((0.5, 2.0), (2.0, 0.5), (1.0, 1.0))
"""Width and height of the tiles of three passes, in fractions of the tile asked for: seams are elsewhere in each."""


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin along one axis; the last one is as long as what is left."""
    return [0] if length <= tile else list(range(0, length - overlap, tile - overlap))


def feather(length: int, fade: int) -> Tensor:
    """Return the weights (length,) of a tile: a ramp of `fade` at both ends, none where the ramp would not fit."""
    weights = torch.ones(length)
    if 0 < fade < length:
        ramp = torch.arange(1, fade + 1) / fade
        weights[:fade] *= ramp
        weights[-fade:] *= ramp.flip(0)
    return weights


def tiled_scale(
    samples: Tensor,
    function: Callable[[Tensor], Tensor],
    tile_x: int,
    tile_y: int,
    overlap: int,
    scale: float,
    channels: int,
) -> Tensor:
    """Apply a function that scales its input's height and width by `scale`, tile by tile.

    Args:
        samples: (B, C, H, W).
        function: (1, C, h, w) -> (1, C', h * scale, w * scale).
        tile_x: width of a tile, in samples.
        tile_y: height of a tile.
        overlap: of neighbouring tiles.
        channels: C' of the function.

    Returns:
        (B, C', H * scale, W * scale), float32, on the CPU.
    """
    height, width = samples.shape[2:]
    size = round(height * scale), round(width * scale)
    total, weight = torch.zeros(len(samples), channels, *size), torch.zeros(1, 1, *size)
    fade = round(overlap * scale) if height > tile_y or width > tile_x else 0
    for y, x in itertools.product(tile_starts(height, tile_y, overlap), tile_starts(width, tile_x, overlap)):
        tile = samples[:, :, y : y + tile_y, x : x + tile_x]
        part = torch.cat([function(sample[None]).float().cpu() for sample in tile])
        mask = feather(part.shape[2], fade)[:, None] * feather(part.shape[3], fade)
        top, left = round(y * scale), round(x * scale)
        region = (..., slice(top, top + part.shape[2]), slice(left, left + part.shape[3]))
        total[region] += part * mask
        weight[region] += mask
    return total / weight


def three_passes(
    samples: Tensor,
    function: Callable[[Tensor], Tensor],
    tile_x: int,
    tile_y: int,
    overlap: int,
    scale: float,
    channels: int,
) -> Tensor:
    """Return the mean of `tiled_scale` with tiles of three shapes, whose seams are in different places.

    Raises:
        ValueError: the overlap is half a tile or more.
    """
    if 2 * overlap >= min(tile_x, tile_y):
        limit = min(tile_x, tile_y) // 2
        raise ValueError(f"an overlap of {overlap} does not fit tiles of {tile_x} x {tile_y}; it must be below {limit}")
    shapes = [(int(tile_x * a), int(tile_y * b)) for a, b in PASSES]
    passes = [tiled_scale(samples, function, x, y, overlap, scale, channels) for x, y in shapes]
    return torch.stack(passes).mean(0)
