"""What an image shows: its two dominating palette colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .textures import PALETTE

MEANS = 2
"""Clusters of colour in an image; the test of it finds the right two colours in every drawn pattern."""


def k_means(
    points: NDArray[np.float32], count: int, rounds: int = 12
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Lloyd's algorithm, begun at the points that lie farthest from each other.

    Args:
        points: (N, D).

    Returns:
        Centres (count, D) and the share of points each holds (count,), sums to 1.
    """
    centres = points.mean(0, keepdims=True)
    for _ in range(count):
        far = np.min(((points[:, None] - centres) ** 2).sum(-1), axis=1)
        centres = np.concatenate([centres, points[far.argmax()][None]])
    centres = centres[1:]
    nearest = np.zeros(len(points), dtype=np.int64)
    for _ in range(rounds):
        nearest = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
        centres = np.stack([points[nearest == i].mean(0) if (nearest == i).any() else centres[i] for i in range(count)])
    return centres, np.bincount(nearest, minlength=count) / len(points)


def dominating(image: NDArray[np.uint8], means: int = MEANS) -> set[str]:
    """The two palette colours with the largest share, each k-means centre counted for the palette colour nearest to it.

    Args:
        image: (H, W, 3).
    """
    points = image[::2, ::2].reshape(-1, 3).astype(np.float32)
    names, palette = list(PALETTE), np.array(list(PALETTE.values()), np.float32)
    centres, shares = k_means(points, means)
    total = dict.fromkeys(names, 0.0)
    for centre, share in zip(centres, shares, strict=True):
        total[names[((palette - centre) ** 2).sum(-1).argmin()]] += share
    return set(sorted(names, key=lambda n: -total[n])[:2])
