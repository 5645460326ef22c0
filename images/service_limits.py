"""Limits of hosted services on size, guidance, steps and count by model family, and the nearest allowed values.

Numbers are those of the services' documents: Scenario's by family, OctoAI's lists of sizes, Leonardo's ranges. OctoAI's
document has no largest count; 64 is that of ComfyUI's Repeat Latent Batch. Requests of these services are checked
against the same numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

Size = tuple[int, int]
Range = tuple[float, float]

FAMILIES = ["SD 1.5", "SDXL", "Flux dev", "Flux pro"]
RULES = ["Scenario", "OctoAI", "Leonardo"]

GUIDANCE: dict[str, tuple[float, Range]] = {
    "SD 1.5": (7.5, (0.0, 20.0)),
    "SDXL": (6.0, (0.0, 20.0)),
    "Flux dev": (3.5, (0.0, 10.0)),
    "Flux pro": (3.0, (2.0, 5.0)),
}
SIDES: dict[str, Range] = {"SD 1.5": (64, 1024), "SDXL": (512, 2048)}
ANY_SIDE: Range = (64, 2048)
LEONARDO_SIDE: Range = (32, 1536)
STEP = 8
STEPS: dict[str, Range] = {"Scenario": (1, 150), "OctoAI": (1, 200), "Leonardo": (10, 60)}
COUNTS: dict[str, Range] = {"Scenario": (1, 128), "OctoAI": (1, 128), "Leonardo": (1, 8)}
LARGE, LARGE_COUNT = 768, 4

OCTOAI_SDXL = "1536x640 768x1344 832x1216 1344x768 1152x896 640x1536 1216x832 896x1152 1024x1024"
OCTOAI_SD15 = (
    "768x576 1024x576 640x512 384x704 640x768 640x640 1024x768 1536x1024 768x1024 576x448 1024x1024 896x896 704x1216 "
    "512x512 448x576 832x512 512x704 576x768 1216x704 512x768 512x832 1024x1536 576x1024 704x384 768x512"
)


@dataclass
class Settings:
    """Settings of a request; guidance below 0 means the family's default."""

    width: int
    height: int
    steps: int
    guidance: float
    count: int


def octoai_sizes(family: str) -> list[Size]:
    """OctoAI's (width, height) pairs of a family; those of SDXL where it is not SD 1.5."""
    listed = OCTOAI_SD15 if family == "SD 1.5" else OCTOAI_SDXL
    return [(int(width), int(height)) for width, height in (pair.split("x") for pair in listed.split())]


def size_of_ratio(ratio: str, area: int, step: int = STEP) -> Size:
    """Return the size of an aspect ratio "width:height" with about `area` pixels, in multiples of `step`.

    >>> size_of_ratio("16:9", 1024 * 1024)
    (1368, 768)

    Raises:
        ValueError: it is not of that form, or beyond 16:1.
    """
    found = re.fullmatch(r"\s*([1-9][0-9]{0,4})\s*:\s*([1-9][0-9]{0,4})\s*", ratio)
    wide = int(found[1]) / int(found[2]) if found else 0.0
    if not 1 / 16 <= wide <= 16:
        raise ValueError(f'aspect_ratio is {ratio[:40]!r}; write "width:height" from 1:16 to 16:1, such as 16:9.')
    width, height = math.sqrt(area * wide), math.sqrt(area / wide)
    return max(1, round(width / step)) * step, max(1, round(height / step)) * step


def nearest(settings: Settings, family: str, rules: str) -> Settings:
    """Return the nearest allowed settings; of listed sizes, the one nearest in shape and area."""
    low, high = STEPS[rules]
    width, height = _nearest_size(settings, family, rules)
    most = COUNTS[rules][1] if rules != "Leonardo" or max(width, height) <= LARGE else LARGE_COUNT
    default, (least, strongest) = GUIDANCE[family]
    guidance = default if settings.guidance < 0 else min(max(settings.guidance, least), strongest)
    steps = int(min(max(settings.steps, low), high))
    return Settings(width, height, steps, guidance, int(min(max(settings.count, 1), most)))


def _nearest_size(settings: Settings, family: str, rules: str) -> Size:
    if rules == "OctoAI":
        return min(octoai_sizes(family), key=lambda size: _distance(size, (settings.width, settings.height)))
    low, high = LEONARDO_SIDE if rules == "Leonardo" else SIDES.get(family, ANY_SIDE)
    width, height = (int(min(max(round(s / STEP) * STEP, low), high)) for s in (settings.width, settings.height))
    return width, height


def _distance(one: Size, other: Size) -> float:
    return sum(math.log(a / b) ** 2 for a, b in zip(one, other, strict=True))


def explained(settings: Settings, family: str, rules: str) -> list[str]:
    """Return a line for each setting that is not allowed, with the allowed range."""
    allowed = nearest(settings, family, rules)
    default, (least, strongest) = GUIDANCE[family]
    low, high = STEPS[rules]
    lines = {
        f"size {settings.width}x{settings.height}: {_sizes(family, rules)}; nearest {allowed.width}x{allowed.height}": (
            settings.width,
            settings.height,
        )
        != (allowed.width, allowed.height),
        f"steps {settings.steps}: {rules} takes {low:g} to {high:g}": settings.steps != allowed.steps,
        f"guidance {settings.guidance:g}: {family} takes {least:g} to {strongest:g}, {default:g} is its own": (
            0 <= settings.guidance != allowed.guidance
        ),
        f"count {settings.count}: {rules} takes 1 to {COUNTS[rules][1]:g}{_large(rules)}": settings.count
        != allowed.count,
    }
    return [line for line, is_wrong in lines.items() if is_wrong]


def _large(rules: str) -> str:
    return f", or {LARGE_COUNT} where a side is above {LARGE}" if rules == "Leonardo" else ""


def _sizes(family: str, rules: str) -> str:
    if rules == "OctoAI":
        return f"OctoAI takes {_joined(octoai_sizes(family))} for {family}"
    low, high = LEONARDO_SIDE if rules == "Leonardo" else SIDES.get(family, ANY_SIDE)
    return f"{rules} takes sides of {low:g} to {high:g} in steps of {STEP} for {family}"


def _joined(sizes: Iterable[Size]) -> str:
    return ", ".join(f"{width}x{height}" for width, height in sizes)
