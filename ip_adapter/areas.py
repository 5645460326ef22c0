"""Partition pixels by the references active there, so that masked regions do not pay for every image."""

from __future__ import annotations

import torch
from torch import Tensor

CALL = 2**19
"""Cost of one more area, in multiplications of a query with a key: about 70 microseconds."""

GATHER = 4
"""Cost of gather and scatter per pixel, in units of one attended token."""

Part = tuple[Tensor | None, list[int]]
"""Numbers of the pixels, None for all, and of the images that are attended to there."""


def split(mask: Tensor, combine: str, tokens: int, channels: int) -> list[Part]:
    """Divide the pixels by the images that act there, where that is cheaper than attention to all images everywhere.

    Args:
        mask: (n, L), 0 where an image does not act.
        combine: one of `attend.COMBINES`.
        tokens: of an image.
        channels: of the queries.

    Returns:
        Areas whose outputs add up to the whole. Pixels on which no image acts are in none, unless an area is for all.
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
    # Images that compete stay together: with share those that act at a pixel, with concat all of them.
    sets = acts if combine == "share" else acts.any(0).expand_as(acts)
    found, places, sizes = torch.unique(sets.T, dim=0, return_inverse=True, return_counts=True)
    acting = [(place, _numbers(images).tolist()) for place, images in enumerate(found) if images.any()]
    if sum(cost(int(sizes[place]), len(images)) for place, images in acting) >= CALL + everywhere * len(mask):
        return [(None, list(range(len(mask))))]
    return [(_numbers(places == place), images) for place, images in acting]


def _numbers(where: Tensor) -> Tensor:
    return torch.nonzero(where).flatten()
