"""What a node shows: text, numbers and images, kept in ComfyUI's history and in `--json` of the command line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..contract import ui
from ..images.sheets import thumbnail


def shown(text: str, **numbers: float) -> dict[str, Any]:
    """Return a text and named numbers for the `ui` of a node's output; numbers that JSON cannot hold are None.

    >>> shown("no seam", seam_ratio=1.5)
    {'text': ('no seam',), 'seam_ratio': (1.5,)}
    """
    return {"text": (text,)} | {name: (value if math.isfinite(value) else None,) for name, value in numbers.items()}


def coloured(images: Tensor) -> Tensor:
    """Return images (B, H, W, C) as hosts save them: grey ones in three channels, without their transparency."""
    return images if images.shape[-1] in (3, 4) else images[..., :1].expand(-1, -1, -1, 3)


def files_of(images: Tensor) -> list[dict[str, str]]:
    """Save images (B, H, W, C) in the temporary folder; return their names for the `ui` of a node's output."""
    return ui.PreviewImage(coloured(images)).as_dict()["images"]


def named(images: Sequence[Tensor] | Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Return images (H, W, 3) with their names, for a sheet in the node whose images open large."""
    files = [file for image in images for file in files_of(image[None])]
    return {"sheet": files, "names": tuple(names)}


def labelled(images: Tensor, label: str) -> dict[str, Any]:
    """Return small images of a batch (B, H, W, 3) with a label above each, which the editor shows as they are."""
    return {"images": files_of(thumbnail(images, label))}
