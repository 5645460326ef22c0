"""What the scheduler nodes have in common: their inputs, and what can be wrong with what is typed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import io
from ..samplers import build, spacing
from ..samplers.registry import NAMES, find
from .checks import verdict

AUTO = "auto"
# What stands for "the scheduler's own" in widgets of numbers.
OWN: Mapping[str, Any] = {
    "solver_order": 0,
    "solver_type": AUTO,
    "algorithm_type": AUTO,
    "eta": -1.0,
    "original_inference_steps": 0,
}


def chosen_options(scheduler: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not the scheduler's own.

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
    """What `validate_inputs` says of the inputs that `choose` takes; linked options are left to it."""
    typed = {name: OWN[name] if value is None else value for name, value in options.items()}

    def check_options(name: str) -> None:
        chosen_options(name, typed)

    given = {"scheduler": scheduler, "steps": steps, "denoise": denoise, **options}
    return verdict(node, given, (check_options, ["scheduler"]), (spacing.check_steps, ["steps", "denoise"]))


def scheduler_input() -> io.Input:
    """The scheduler's name."""
    return io.Combo.Input(
        "scheduler",
        options=NAMES,
        default="DPMSolverMultistepScheduler",
        tooltip="The diffusers scheduler; the node's page says which is good for what.",
    )


def spacing_input() -> io.Input:
    """The spacing's name."""
    return io.Combo.Input(
        "spacing",
        options=list(spacing.SPACINGS),
        default=AUTO,
        optional=True,
        tooltip="How noise levels are spaced: auto is the scheduler's own, or even flow times on models such as Flux.",
    )


def option_inputs() -> list[io.Input]:
    """The options; each is refused by schedulers that it does not apply to."""
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
            tooltip="What stochastic schedulers draw: the same on every device, or a diffusers pipeline's own.",
        ),
        io.Int.Input(
            "solver_order",
            default=OWN["solver_order"],
            min=0,
            max=3,
            optional=True,
            advanced=True,
            tooltip="Order of DPMSolver, UniPC and DEIS; 0 is the scheduler's own.",
        ),
        io.Combo.Input(
            "solver_type",
            options=[AUTO, "midpoint", "heun"],
            default=OWN["solver_type"],
            optional=True,
            advanced=True,
            tooltip="Form of DPMSolver's second order.",
        ),
        io.Combo.Input(
            "algorithm_type",
            options=[AUTO, "dpmsolver++", "sde-dpmsolver++"],
            default=OWN["algorithm_type"],
            optional=True,
            advanced=True,
            tooltip="DPMSolver's equation: deterministic, or with noise (sde).",
        ),
        io.Float.Input(
            "eta",
            default=OWN["eta"],
            min=-1.0,
            max=1.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="DDIM's and TCD's share of fresh noise, 0 to 1; -1 is the scheduler's own.",
        ),
        io.Int.Input(
            "original_inference_steps",
            default=OWN["original_inference_steps"],
            min=0,
            max=spacing.MAX_STEPS,
            optional=True,
            advanced=True,
            tooltip="The number of steps that LCM and TCD take theirs from; 0 is the scheduler's own, 50.",
        ),
    ]
