"""What the measures of a seam say where there is none, pattern by pattern: by chance, and because patterns have edges.

Drawn textures have no seam inside. Any line between two of their columns, or rows, is taken for the border and compared
with the others: exactly what becomes of a texture that repeats perfectly and is rolled at random. A measure can certify
images of a pattern only where it passes such textures.

    python -m tessera.demo.training.seam_chance --size 128
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...tiling.seam import AxisSeam, seam_of_steps
from .captions import pairs
from .textures import PATTERNS, draw

IMAGES = 64
LINES = 8
CERTAIN = 0.95
"""Share of images without a seam that a measure has to pass before it counts for a pattern."""

Both = tuple[AxisSeam, AxisSeam]


class Shares(NamedTuple):
    """Shares (0..1) of images that pass a measure on both axes."""

    sr: float
    sr_max: float
    cr: float
    cr_max: float
    unseen: float


TITLES = ("SR <= 1.5", "SRmax <= 1", "CR <= 1.5", "CRmax <= 1", "no seam shows")


def shares(seams: Sequence[Both]) -> Shares:
    """How many of these images pass."""

    def share(passes: list[bool]) -> float:
        return float(np.mean(passes))

    return Shares(
        share([max(axis.sr for axis in both) <= 1.5 for both in seams]),
        share([max(axis.sr_max for axis in both) <= 1.0 for both in seams]),
        share([max(axis.cr for axis in both) <= 1.5 for both in seams]),
        share([max(axis.cr_max for axis in both) <= 1.0 for both in seams]),
        share([not any(axis.visible for axis in both) for both in seams]),
    )


def chance(pattern: str, size: int, images: int = IMAGES, lines: int = LINES) -> list[Both]:
    """The seams that `images` drawn textures have at `lines` places each where nothing is wrong."""
    rng, colours = np.random.default_rng([size, list(PATTERNS).index(pattern)]), pairs(held_out=False)
    found = []
    for _ in range(images):
        image = torch.from_numpy(draw(rng, pattern, colours[rng.integers(len(colours))], size)).float() / 255
        steps = [image.transpose(0, 1).diff(dim=0), image.diff(dim=0)]
        places = rng.integers(size - 1, size=(lines, 2)).tolist()
        found += [(seam_of_steps(_first(steps[0], x)), seam_of_steps(_first(steps[1], y))) for x, y in places]
    return found


def _first(steps: Tensor, place: int) -> Tensor:
    """The steps with that at `place` before all others."""
    return torch.cat([steps[place : place + 1], steps[:place], steps[place + 1 :]])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="side of the textures, px")
    parser.add_argument("--images", type=int, default=IMAGES, help="textures of each pattern")
    args = parser.parse_args()
    print(f"| {args.size} px | {' | '.join(TITLES)} |\n|---|{'---|' * len(TITLES)}")
    passed: dict[str, Shares] = {}
    for pattern in PATTERNS:
        passed[pattern] = shares(chance(pattern, args.size, args.images))
        print(f"| {pattern} | {' | '.join(f'{share:.0%}' for share in passed[pattern])} |", flush=True)
    for measure, title in enumerate(TITLES):
        certain = [pattern for pattern, found in passed.items() if found[measure] >= CERTAIN]
        print(f"{title} can certify: {', '.join(certain) or 'nothing'}")


if __name__ == "__main__":
    main()
