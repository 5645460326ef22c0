"""Which images are to be looked at in which part of a picture, so that ten areas do not cost ten images."""

from __future__ import annotations

import torch
from torch import Tensor

CALL = 2**19
"""What it takes to treat one more part, in products of a query's and a key's number: about 70 microseconds."""

GATHER = 4
"""What it takes to pick one pixel and put it back, in tokens attended to."""

Part = tuple[Tensor | None, list[int]]
"""Numbers of pixels, None for all, and of the images that are looked at there."""


def split(mask: Tensor, combine: str, tokens: int, channels: int) -> list[Part]:
    """Divide a picture by the images that act, where that is cheaper than to look at them everywhere.

    Args:
        mask: (n, L), 0 where an image does not act.
        combine: one of `attend.COMBINES`.
        tokens: of an image.
        channels: of the queries.

    Returns:
        Parts whose sum is the whole; in none of them are pixels on which no image acts, unless it is for all pixels.
    """
    acts = mask > 0
    everywhere = mask.shape[1] * channels * tokens

    def cost(pixels: int, images: int) -> int:
        return CALL + pixels * channels * (GATHER + images * tokens)

    if combine == "sum":
        counts = acts.sum(1).tolist()
        near = [i for i, count in enumerate(counts) if cost(count, 1) < everywhere]
        far = [i for i in range(len(mask)) if i not in near]
        parts: list[Part] = [(_numbers(acts[i]), [i]) for i in near if counts[i]]
        return [*parts, (None, far)] if far else parts
    # Where images compete, those that do so are one part: with share the ones that act, with concat all of them.
    sets = acts if combine == "share" else acts.any(0).expand_as(acts)
    found, places, sizes = torch.unique(sets.T, dim=0, return_inverse=True, return_counts=True)
    acting = [(place, _numbers(images).tolist()) for place, images in enumerate(found) if images.any()]
    if sum(cost(int(sizes[place]), len(images)) for place, images in acting) >= CALL + everywhere * len(mask):
        return [(None, list(range(len(mask))))]
    return [(_numbers(places == place), images) for place, images in acting]


def _numbers(where: Tensor) -> Tensor:
    return torch.nonzero(where).flatten()
