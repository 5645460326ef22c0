"""Textures that repeat, drawn by `texture-sd` on a torus: what `texture-flux` learns whole tori from.

Drawn textures (demo/training/textures.py) are never made to fit, so that windows of a torus are all they can show.
These are: a model that has seen no others draws them with circular convolutions. Images that show something else
are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .captions import plain
from .classifier import classify, train_classifier
from .evaluate import Model
from .measures import dominating
from .textures import PATTERNS

Label = tuple[str, str, str]
"""Pattern, main colour, second colour."""

STEPS = 12
"""Of DPM-Solver++(2M)."""

GUIDANCE = 4.0


def draw_repeating(shown: list[Label], size: int, work: Path) -> tuple[Tensor, list[Label]]:
    """Draw textures that tile in both directions.

    Args:
        shown: what to draw, one image each.
        size: width and height in px, a multiple of 64.
        work: folder of the classifier, which is trained if it is not there.

    Returns:
        Images (N, 3, size, size) in -1..1 and what they show: those of `shown` that came out right.
    """
    model = Model(Path(__file__).parents[1] / "models" / "texture-sd", "dpmpp_2m", STEPS, GUIDANCE, size)
    drawn = model.draw([plain(pattern, (a, b)) for pattern, a, b in shown], range(len(shown)))
    images = torch.from_numpy(drawn).movedim(-1, 1).float() / 127.5 - 1
    judge, _ = train_classifier(work / "classifier.pt")
    seen = [list(PATTERNS)[kind] for kind in classify(judge, images).tolist()]
    right = [
        pattern == label[0] and dominating(image) == set(label[1:])
        for pattern, image, label in zip(seen, drawn, shown, strict=True)
    ]
    return images[np.flatnonzero(right)], [label for label, keep in zip(shown, right, strict=True) if keep]
