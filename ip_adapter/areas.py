"""Which images are to be looked at in which part of a picture, so that ten areas do not cost ten images."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

CALL = 2**19
"""What it takes to treat one more part, in products of a query's and a key's number: about 50 microseconds."""

GATHER = 12
"""What it takes to pick one pixel, in tokens attended to."""

MOST = 64
"""Different sets of images in a picture; beyond, masks are no areas any more, and all are looked at everywhere."""


@dataclass(frozen=True)
class Part:
    """Pixels, as rows of `patterns`, and the images that act on any of them."""

    patterns: tuple[int, ...]
    images: frozenset[int]
    pixels: int

    def cost(self, tokens: int, channels: int) -> int:
        """Of attending to it."""
        return CALL + self.pixels * channels * (GATHER + len(self.images) * tokens)

    def with_(self, other: Part) -> Part:
        """Both as one."""
        return Part(self.patterns + other.patterns, self.images | other.images, self.pixels + other.pixels)


def split(mask: Tensor, tokens: int, channels: int) -> list[tuple[Tensor, list[int]]] | None:
    """Divide a picture by the images that act.

    Args:
        mask: (n, L), 0 where an image does not act.
        tokens: of an image.
        channels: of the queries.

    Returns:
        Numbers of pixels and of images, in the cheapest division that merging pairs finds; pixels on which no image
        acts are in none. None where attending to all images everywhere is cheaper.
    """
    patterns, numbers, counts = torch.unique((mask > 0).T, dim=0, return_inverse=True, return_counts=True)
    if len(patterns) > MOST:
        return None
    images = [frozenset(torch.nonzero(row).flatten().tolist()) for row in patterns]
    parts = _merge([Part((i,), each, int(counts[i])) for i, each in enumerate(images) if each], tokens, channels)
    whole = CALL + mask.shape[1] * channels * mask.shape[0] * tokens
    if sum(part.cost(tokens, channels) for part in parts) >= whole:
        return None
    return [
        (torch.nonzero(torch.isin(numbers, torch.tensor(part.patterns))).flatten(), sorted(part.images))
        for part in parts
    ]


def _merge(parts: list[Part], tokens: int, channels: int) -> list[Part]:
    def gain(pair: tuple[Part, Part]) -> int:
        a, b = (part.cost(tokens, channels) for part in pair)
        return a + b - pair[0].with_(pair[1]).cost(tokens, channels)

    while len(parts) > 1:
        best = max(combinations(parts, 2), key=gain)
        if gain(best) <= 0:
            break
        parts = [part for part in parts if part not in best] + [best[0].with_(best[1])]
    return parts
