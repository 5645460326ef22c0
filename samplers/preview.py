"""Noise levels of a scheduler without a model, for a plot that follows what is typed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..patching.model_sampling import NoiseSchedule
from .build import make
from .pipeline import STABLE_DIFFUSION, noise_schedule_of, shifted
from .plan import plan
from .registry import find

FLUX_SHIFT = math.exp(1.15)
"""ComfyUI's default shift of Flux."""
SD3_SHIFT = 3.0
"""ComfyUI's default shift of Stable Diffusion 3."""


def _diffusion() -> NoiseSchedule:
    return noise_schedule_of(make("DDIMScheduler", STABLE_DIFFUSION))


def _flow(shift: float, count: int) -> NoiseSchedule:
    even = torch.arange(1, count + 1) / count
    return NoiseSchedule(shifted(even, shift), "flow", lambda sigmas: sigmas * 1000)


FAMILIES: Mapping[str, Callable[[], NoiseSchedule]] = {
    "Stable Diffusion": _diffusion,
    "Flux": lambda: _flow(FLUX_SHIFT, 10000),
    "SD3": lambda: _flow(SD3_SHIFT, 1000),
}
"""Tables of noise levels by model family, with the shift that ComfyUI sets where a graph sets none."""


def preview(
    family: str,
    scheduler: str,
    steps: int,
    denoise: float,
    spacing: str,
    final: str,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a choice of a scheduler gives on a model family, as JSON.

    Args:
        family: one of `FAMILIES`.
        scheduler: as the other arguments, those of `plan`.

    Returns:
        `options` that apply to the scheduler, and either `sigmas` with a `summary` and its warnings, or an `error`.
    """
    try:
        entry = find(scheduler)
    except ValueError as error:
        return {"options": [], "error": str(error)}
    try:
        made = plan(FAMILIES[family](), scheduler, steps, denoise, spacing, final, options=options)
    except (ValueError, RuntimeError) as error:
        return {"options": list(entry.options), "error": str(error)}
    return {"options": list(entry.options), "sigmas": made.sigmas.tolist(), "summary": made.summary}
