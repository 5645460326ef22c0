"""A chosen scheduler with the noise levels of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..patching.model_sampling import noise_schedule
from . import report, spacing
from .build import check_options
from .registry import find
from .sampler import Choice, NoiseMode


@dataclass(frozen=True)
class Plan:
    """A run that is ready to sample.

    Attributes:
        choice: the scheduler with its options.
        sigmas: noise levels (steps + 1,); none where denoise is 0.
        summary: what will run, and warnings; a line each.
    """

    choice: Choice
    sigmas: Tensor
    summary: str


def plan(
    model_sampling: Any,
    scheduler: str,
    steps: int,
    denoise: float = 1.0,
    spacing_name: str = "auto",
    final: str = "zero",
    noise: NoiseMode = "portable",
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """Choose a scheduler and space its noise levels for a model.

    Args:
        model_sampling: of the model, or its NoiseSchedule.
        scheduler: the name of a diffusers scheduler, with or without "Scheduler".
        steps: 1..1000.
        denoise: 0..1, see `spacing.sigmas`.
        spacing_name: one of `spacing.SPACINGS`.
        final: "zero", or "sigma_min" for the lowest trained level.
        noise: where the scheduler's noise comes from, see `Choice`.
        options: arguments of the scheduler's constructor or step, by diffusers' names.

    Raises:
        ValueError: the scheduler is unknown, an option does not apply to it, or a number is out of range.
        RuntimeError: diffusers is missing or too old.
    """
    entry, schedule, given = find(scheduler), noise_schedule(model_sampling), dict(options or {})
    check_options(entry, given)
    kind = spacing.resolve(entry, spacing_name, schedule.flow)
    sigmas = spacing.spaced(entry, schedule, steps, denoise, kind, final, given)
    # A pipeline's first noise is as strong as its spacing says.
    strength = {"timestep_spacing": kind} if kind in spacing.TIMESTEPS else {}
    summary = report.describe(entry, sigmas, kind, steps, schedule.flow)
    if "original_inference_steps" in given and kind != spacing.OWN:
        summary += f"\noriginal_inference_steps has no effect with {kind} spacing."
    return Plan(Choice(entry, given | strength, noise), sigmas, summary)
