"""Text and numbers that a node shows: kept in ComfyUI's history and in `--json` of the command line."""

from __future__ import annotations

import math
from typing import Any


def shown(text: str, **numbers: float) -> dict[str, Any]:
    """Return a text and named numbers for the `ui` of a node's output; numbers that JSON cannot hold are None.

    >>> shown("no seam", seam_ratio=1.5)
    {'text': ('no seam',), 'seam_ratio': (1.5,)}
    """
    return {"text": (text,)} | {name: (value if math.isfinite(value) else None,) for name, value in numbers.items()}
