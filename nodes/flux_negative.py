"""Flux Negative Prompt: negative guidance for models with embedded guidance."""

from __future__ import annotations

import logging
from typing import Any

from ..contract import calc_cond_batch, convert_cond, io
from ..guidance.flux_negative import IN_ATTENTION, KEY, METHODS, FluxNegative, check_flux, check_text, check_whole
from ..patching.networks import describe
from ..patching.schedule import ScheduleRange
from ..patching.wrappers import install
from .checks import verdict
from .inputs import check_range, percent

MAX_STRENGTH = 10.0
"""Of Flux Negative Prompt, as of the hosted services."""

_log = logging.getLogger(__name__)


class TesseraFluxNegative(io.ComfyNode):
    """Steer Flux away from a prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraFluxNegative",
            display_name="Flux Negative Prompt",
            category="Tessera/sampling",
            description="Gives Flux a negative prompt with a strength; leave KSampler's cfg at 1.",
            search_aliases=["negative prompt", "nag", "normalized attention guidance", "true cfg", "flux negative"],
            inputs=[
                io.Model.Input("model", tooltip="A Flux model; it is not changed."),
                io.Conditioning.Input("negative", tooltip="What the image should not show, encoded like the prompt."),
                io.Float.Input(
                    "strength",
                    default=0.0,
                    min=0.0,
                    max=MAX_STRENGTH,
                    step=0.1,
                    tooltip="0 changes nothing and costs nothing; 4 is a good start, 10 removes most of it.",
                ),
                io.Combo.Input(
                    "method",
                    options=[*METHODS, "auto"],
                    default="nag_strong",
                    optional=True,
                    tooltip="nag_strong and the weaker nag guide attention and take about a quarter more "
                    "time; cfg runs a second pass and oversaturates when strong; cfg_soft also runs one, without "
                    "oversaturating; auto, of older workflows, is nag.",
                ),
                percent("start_percent", 0.0, "Fraction of the schedule at which the negative prompt starts to act."),
                percent(
                    "end_percent",
                    1.0,
                    "Fraction of the schedule after which it no longer acts; 0.5 saves time, but later steps bring "
                    "some of it back.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, steered away from the negative prompt.")
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        negative: Any,
        strength: float,
        method: str = "auto",
        start_percent: float = 0.0,
        end_percent: float = 0.5,
    ) -> io.NodeOutput:
        """Patch a clone of the model; at strength 0 return the model itself.

        The defaults are those of the first version, for prompts that leave them out; new nodes have the schema's.
        """
        check_steering(strength, start_percent, end_percent)
        if strength == 0.0:
            _log.info("Flux Negative Prompt: strength is 0, so the negative prompt has no effect; try 4.")
            return io.NodeOutput(model)
        method = checked(model, negative, method)
        schedule = ScheduleRange(start_percent, end_percent)
        hooks = FluxNegative(negative, strength, method, schedule, convert_cond, calc_cond_batch)
        return io.NodeOutput(install(model, KEY, hooks, hooks.hooks))

    @classmethod
    def validate_inputs(
        cls, strength: float | None = 0.0, start_percent: float | None = 0.0, end_percent: float | None = 0.5
    ) -> bool | str:
        """Check the strength and the range."""
        given = {"strength": strength, "start_percent": start_percent, "end_percent": end_percent}
        return verdict(cls, given, (check_steering, list(given)))


def check_steering(strength: float, start: float, end: float) -> None:
    """Raise ValueError when the strength is out of range, or the range of the schedule is empty and counts."""
    if not 0.0 <= strength <= MAX_STRENGTH:
        raise ValueError(f"strength is {strength}; set it from 0 to {MAX_STRENGTH:g}.")
    if strength:
        check_range(start, end)


def checked(model: Any, negative: Any, method: str) -> str:
    """Return the method that `method` selects, after checking that model and negative prompt suit it.

    Raises:
        ValueError: they do not.
    """
    if not negative:
        raise ValueError("The negative prompt is empty; link a CONDITIONING to negative, or set strength to 0.")
    check_whole(negative)
    method = "nag" if method == "auto" else method
    if method in IN_ATTENTION:
        network = describe(model)
        check_flux(network)
        check_text(network, negative)
    return method
