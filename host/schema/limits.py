"""Limits that several core nodes share, as ComfyUI has them."""

from __future__ import annotations

MAX_RESOLUTION = 16384
"""Longest side of an image, in pixels."""

MAX_SEED = 0xFFFFFFFFFFFFFFFF
"""Largest random seed."""
