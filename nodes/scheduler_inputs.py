"""Inputs that the scheduler nodes share, and the checks of what is typed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import io
from ..samplers import build, spacing
from ..samplers.registry import NAMES, find
from .checks import verdict

AUTO = "auto"
OWN: Mapping[str, Any] = {
    "solver_order": 0,
    "solver_type": AUTO,
    "algorithm_type": AUTO,
    "eta": -1.0,
    "original_inference_steps": 0,
}
"""Sentinel widget values meaning 'use the scheduler's default'."""


def chosen_options(scheduler: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that differ from the scheduler's defaults.

    Raises:
        ValueError: one does not apply to the scheduler.
    """
    given = {key: value for key, value in options.items() if value != OWN[key]}
    build.check_options(find(scheduler), given)
    return given


def check_choice(
    node: type[io.ComfyNode],
    scheduler: str | None,
    steps: int | None,
    denoise: float | None,
    options: Mapping[str, Any],
) -> bool | str:
    """Return what `validate_inputs` says about the inputs of `choose`; linked options wait for the run."""
    typed = {name: OWN[name] if value is None else value for name, value in options.items()}

    def check_options(name: str) -> None:
        chosen_options(name, typed)

    given = {"scheduler": scheduler, "steps": steps, "denoise": denoise, **options}
    return verdict(node, given, (check_options, ["scheduler"]), (spacing.check_steps, ["steps", "denoise"]))


def scheduler_input() -> io.Input:
    """Declare the scheduler."""
    return io.Combo.Input(
        "scheduler",
        options=NAMES,
        default="DPMSolverMultistepScheduler",
        tooltip="The diffusers scheduler; the help page says which is good for what.",
    )


def spacing_input() -> io.Input:
    """Declare the spacing."""
    return io.Combo.Input(
        "spacing",
        options=list(spacing.SPACINGS),
        default=AUTO,
        optional=True,
        tooltip="Spacing of the noise levels: auto is the scheduler's default, or even flow times on flow models.",
    )


def option_inputs() -> list[io.Input]:
    """Declare the options; schedulers refuse those that do not apply to them."""
    return [*_level_inputs(), *_solver_inputs(), *_few_step_inputs()]


def _level_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "final_sigma",
            options=list(spacing.FINALS),
            default="zero",
            optional=True,
            advanced=True,
            tooltip="The last noise level: zero, or sigma_min, where Stable Diffusion's own DDIM and PNDM end.",
        ),
        io.Combo.Input(
            "noise",
            options=["portable", "diffusers"],
            default="portable",
            optional=True,
            advanced=True,
            tooltip="Noise of stochastic schedulers: the same on every device, or that of a diffusers pipeline.",
        ),
    ]


def _solver_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "solver_order",
            default=OWN["solver_order"],
            min=0,
            max=3,
            optional=True,
            advanced=True,
            tooltip="Order of DPMSolver, UniPC and DEIS; 0 is the scheduler's default.",
        ),
        io.Combo.Input(
            "solver_type",
            options=[AUTO, "midpoint", "heun"],
            default=OWN["solver_type"],
            optional=True,
            advanced=True,
            tooltip="Variant of DPMSolver's second order.",
        ),
        io.Combo.Input(
            "algorithm_type",
            options=[AUTO, "dpmsolver++", "sde-dpmsolver++"],
            default=OWN["algorithm_type"],
            optional=True,
            advanced=True,
            tooltip="DPMSolver's equation: deterministic, or stochastic (sde).",
        ),
    ]


def _few_step_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "eta",
            default=OWN["eta"],
            min=-1.0,
            max=1.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="Share of new noise in DDIM and TCD, 0 to 1; -1 is the scheduler's default.",
        ),
        io.Int.Input(
            "original_inference_steps",
            default=OWN["original_inference_steps"],
            min=0,
            max=spacing.MAX_STEPS,
            optional=True,
            advanced=True,
            tooltip="Length of the schedule that LCM and TCD take their steps from; 0 is the default, 50.",
        ),
    ]
