"""Style presets and prompt enhancement of the services; the words of the styles are those of Style Preset."""

from __future__ import annotations

from ....prompts.styles import PHOTO_WORDS, WORDS, described

__all__ = [
    "DEPTH_OF_FIELD",
    "LEONARDO_STYLES",
    "OCTOAI_STYLES",
    "PHOTO_REAL",
    "PHOTO_WORDS",
    "QUALITY",
    "WORDS",
    "described",
]

LEONARDO_STYLES = tuple(name for name in WORDS if name.isupper())
"""Styles that Leonardo's document prints; PHOTO_WORDS has those of its guide to photoReal."""
OCTOAI_STYLES = tuple(name for name in WORDS if not name.isupper())

PHOTO_REAL = "photograph of a real scene, natural skin and materials"
DEPTH_OF_FIELD = {0.55: "everything in focus", 0.5: "background slightly blurred", 0.45: "background strongly blurred"}
QUALITY = "highly detailed, sharp focus, balanced composition, beautiful light"
