"""What a node shows of its findings: ComfyUI keeps it in its history, the command line in `--json`."""

from __future__ import annotations

import math
from typing import Any


def shown(text: str, **numbers: float) -> dict[str, Any]:
    """A text and numbers by name, for the `ui` of a node's output; numbers that JSON has not are None.

    >>> shown("no seam", seam_ratio=1.5)
    {'text': ('no seam',), 'seam_ratio': (1.5,)}
    """
    return {"text": (text,)} | {name: (value if math.isfinite(value) else None,) for name, value in numbers.items()}
