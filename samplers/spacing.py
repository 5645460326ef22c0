"""The noise levels of a run, spaced as diffusers' own `set_timesteps` does on the model's table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..patching.model_sampling import NoiseSchedule, noise_schedule
from .build import make, parameters
from .inject import alpha_bar
from .registry import SchedulerEntry

TIMESTEPS = ("leading", "trailing", "linspace")
SIGMAS = ("karras", "exponential", "beta")
OWN = "own"
"""What auto means for schedulers that take their steps from among more of their own."""
SPACINGS = ("auto", *TIMESTEPS, *SIGMAS, "flow")
FINALS = ("zero", "sigma_min")
MAX_STEPS = 1000
RHO = 7.0
"""Of Karras' spacing."""
BETA = 0.6
"""Both parameters of the beta spacing."""
EULER = "EulerDiscreteScheduler"
STEPS_OFFSET = 1
"""Offset of leading spacing in Stable Diffusion: its last step is at timestep 1."""


def sigmas(
    entry: SchedulerEntry,
    model_sampling: Any,
    steps: int,
    denoise: float = 1.0,
    spacing: str = "auto",
    final: str = "zero",
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Space the noise levels of a run.

    Args:
        entry: the scheduler.
        model_sampling: of the model, or its NoiseSchedule.
        steps: 1..1000.
        denoise: 0..1; below 1 the last `steps` of `steps / denoise`, see `part`; none at 0.
        spacing: one of `SPACINGS`.
        final: "zero", or "sigma_min" for the lowest trained level.
        options: arguments of the scheduler.

    Returns:
        Falling sigmas (steps + 1,), rising for an inversion, float32; fewer where diffusers repeats levels.

    Raises:
        ValueError: steps or denoise are out of range, or the spacing does not suit the model.

    Examples:
        >>> from diffusers import DDIMScheduler
        >>> from tessera.samplers import noise_schedule_of
        >>> from tessera.samplers.registry import find
        >>> from tessera.samplers.spacing import sigmas
        >>> sigmas(find("EulerDiscrete"), noise_schedule_of(DDIMScheduler()), 3, spacing="trailing")
        tensor([157.4...
    """
    schedule = noise_schedule(model_sampling)
    kind = resolve(entry, spacing, schedule.flow)
    return spaced(entry, schedule, steps, denoise, kind, final, options or {})


def spaced(
    entry: SchedulerEntry,
    schedule: NoiseSchedule,
    steps: int,
    denoise: float,
    kind: str,
    final: str,
    options: Mapping[str, Any],
) -> Tensor:
    """Return noise levels as `sigmas` does, for a spacing `kind` that `resolve` gave."""
    check_steps(steps, denoise)
    if denoise == 0:
        return torch.zeros(0)
    table, flow = schedule.sigmas.float().cpu(), schedule.flow
    total, steps = part(steps, denoise, min(MAX_STEPS, len(table)))
    levels = _flow_levels(entry, table, total, kind) if flow else _levels(entry, table, total, kind, options)
    last = table[:1] if final == "sigma_min" and levels[-1] > table[0] else table.new_zeros(1)
    chosen = torch.cat([levels.unique_consecutive(), last])[-(steps + 1) :]
    chosen = merged(entry, chosen) if flow else chosen
    if not entry.rising:
        return chosen
    return (chosen.clamp(max=entry.highest) if flow else chosen).flip(0)


def check_steps(steps: int, denoise: float) -> None:
    """Raise ValueError when steps or denoise are out of range."""
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"steps is {steps}, expected 1 to {MAX_STEPS}.")
    if not 0 <= denoise <= 1:
        raise ValueError(f"denoise is {denoise}, expected 0 to 1.")


def part(steps: int, denoise: float, most: int) -> tuple[int, int]:
    """Return how many noise levels the whole schedule has, and how many of them, at its end, are run.

    Where the schedule would need more levels than the model has (`most`), it takes all of them and runs fewer steps, so
    that the run still begins at the noise that `denoise` asks for.
    """
    if denoise * most >= steps:
        return min(int(steps / denoise), most), steps
    return most, max(1, round(denoise * most))


def merged(entry: SchedulerEntry, sigmas: Tensor) -> Tensor:
    """Drop falling sigmas of a flow after the first that are `highest` or more, which the scheduler takes for equal."""
    return torch.cat([sigmas[:1], sigmas[1:][sigmas[1:] < entry.highest]])


def resolve(entry: SchedulerEntry, spacing: str, flow: bool) -> str:
    """Return what "auto" means for a scheduler and a model.

    Raises:
        ValueError: the spacing is unknown, or is "flow" and the model is not.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"spacing is {spacing!r}, expected one of: {', '.join(SPACINGS)}.")
    if spacing == "flow" and not flow:
        raise ValueError("spacing is flow, but the model is not a rectified flow such as Flux; set it to auto.")
    return ("flow" if flow else entry.spacing) if spacing == "auto" else spacing


def _levels(entry: SchedulerEntry, table: Tensor, steps: int, kind: str, options: Mapping[str, Any]) -> Tensor:
    scheduler = _timed(entry, table, steps, kind, options)
    if hasattr(scheduler, "sigmas"):
        levels = scheduler.sigmas[:-1][:: scheduler.order].float()
        return levels[levels > 0]
    return _at(table, scheduler.timesteps)


def _flow_levels(entry: SchedulerEntry, table: Tensor, steps: int, kind: str) -> Tensor:
    if kind in TIMESTEPS:
        return _at(table, _timed(entry, table, steps, kind, {}).timesteps)
    even = table[[-1 - int(i * len(table) / steps) for i in range(steps)]]
    if kind == "flow" or steps == 1:
        return even
    return spread(kind, float(even[0]), float(even[-1]), steps).float()


def spread(kind: str, highest: float, lowest: float, steps: int) -> Tensor:
    """Return noise levels (steps,) in float64, decreasing from `highest` to `lowest`, spread as diffusers does.

    Args:
        kind: "karras", with rho = 7 (Karras et al. 2022, arXiv:2206.00364, equation 5); "exponential", even in log
            sigma; "beta", by quantiles of the distribution Beta(0.6, 0.6) (arXiv:2407.12173), which needs scipy.

    Examples:
        >>> from tessera.samplers.spacing import spread
        >>> spread("exponential", 1.0, 0.01, 3)
        tensor([1.0000, 0.1000, 0.0100], dtype=torch.float64)
    """
    along = torch.linspace(0, 1, steps, dtype=torch.float64)
    if kind == "karras":
        return (highest ** (1 / RHO) + along * (lowest ** (1 / RHO) - highest ** (1 / RHO))) ** RHO
    if kind == "exponential":
        return highest * (lowest / highest) ** along
    from scipy.stats import beta

    return lowest + torch.from_numpy(beta.ppf(1 - along.numpy(), BETA, BETA)) * (highest - lowest)


def _at(table: Tensor, timesteps: Tensor) -> Tensor:
    """Return the levels of timesteps; leading ones begin one past the table where all of its levels are used."""
    return table[timesteps.round().long().clamp(0, len(table) - 1)]


def _timed(entry: SchedulerEntry, table: Tensor, steps: int, kind: str, options: Mapping[str, Any]) -> Any:
    arguments = {
        **entry.config,
        "num_train_timesteps": len(table),
        "timestep_spacing": kind,
        "steps_offset": STEPS_OFFSET,
        # LCM takes its steps from among so many.
        "original_inference_steps": max(50, steps),
        **options,
    }
    if kind in SIGMAS:
        arguments |= {f"use_{kind}_sigmas": True, "timestep_spacing": "linspace"}
    taken_from = arguments["original_inference_steps"]
    if kind == OWN and taken_from < steps:
        raise ValueError(
            f"original_inference_steps is {taken_from}, expected at least {steps}, the steps of the whole schedule "
            "(steps / denoise); take fewer steps, or set it to 0."
        )
    scheduler = make(_maker(entry, kind), arguments)
    scheduler.alphas_cumprod = alpha_bar(table.double())
    scheduler.set_timesteps(steps)
    return scheduler


def _maker(entry: SchedulerEntry, kind: str) -> str:
    """Return the class that makes the levels: Euler's where a scheduler does not know the spacing."""
    name = entry.maker or entry.name
    if kind == OWN:
        return entry.name
    return name if kind in TIMESTEPS or f"use_{kind}_sigmas" in parameters(name) else EULER
