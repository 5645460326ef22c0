"""The settings node: the size, steps, guidance and count that a service would take."""

from __future__ import annotations

from typing import Any

from ..contract import io
from ..images.service_limits import FAMILIES, RULES, Settings, explained, nearest, size_of_ratio
from .checks import verdict
from .shown import shown

LARGEST_SIDE = 16384


class TesseraSettings(io.ComfyNode):
    """Checks settings against what services allow for a model family."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSettings",
            display_name="Image Settings",
            category="Tessera/sampling",
            description="Checks the size, steps, guidance and count of images against what hosted services allow.",
            search_aliases=["aspect ratio", "resolution", "image size", "limits", "generation settings"],
            has_intermediate_output=True,
            inputs=[
                io.Combo.Input("family", options=FAMILIES, default="SDXL", tooltip="The kind of the model."),
                io.Combo.Input("rules", options=RULES, default="Scenario", tooltip="Whose limits hold."),
                io.Int.Input("width", default=1024, min=8, max=LARGEST_SIDE, optional=True, tooltip="Width in px."),
                io.Int.Input("height", default=1024, min=8, max=LARGEST_SIDE, optional=True, tooltip="Height in px."),
                io.String.Input(
                    "aspect_ratio",
                    default="",
                    optional=True,
                    tooltip="Such as 16:9: another shape with as many pixels as width and height make; empty for none.",
                ),
                io.Int.Input("steps", default=30, min=1, max=1000, optional=True, tooltip="Number of steps."),
                io.Float.Input(
                    "guidance",
                    default=-1.0,
                    min=-1.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    tooltip="How closely the prompt is followed; -1 is the family's own.",
                ),
                io.Int.Input("count", default=1, min=1, max=128, optional=True, tooltip="Number of images."),
                io.Boolean.Input(
                    "snap",
                    default=False,
                    optional=True,
                    tooltip="Take the nearest value that is allowed, instead of an error.",
                ),
            ],
            outputs=[
                io.Int.Output(display_name="width", tooltip="For an empty latent."),
                io.Int.Output(display_name="height", tooltip="For an empty latent."),
                io.Int.Output(display_name="steps", tooltip="For a sampler or scheduler."),
                io.Float.Output(display_name="guidance", tooltip="For a sampler's cfg, or for FluxGuidance."),
                io.Int.Output(display_name="count", tooltip="For the batch size of an empty latent."),
                io.String.Output(display_name="report", tooltip="What was changed, and why."),
            ],
        )

    @classmethod
    def execute(
        cls,
        family: str,
        rules: str,
        width: int = 1024,
        height: int = 1024,
        aspect_ratio: str = "",
        steps: int = 30,
        guidance: float = -1.0,
        count: int = 1,
        snap: bool = False,
    ) -> io.NodeOutput:
        """Refuse with all reasons in a line, or snap."""
        asked = asked_for(width, height, aspect_ratio, steps, guidance, count)
        wrong = explained(asked, family, rules)
        check_settings(asked, family, rules, snap)
        made = nearest(asked, family, rules)
        report = "\n".join(wrong) or "Everything is allowed."
        return io.NodeOutput(made.width, made.height, made.steps, made.guidance, made.count, report, ui=shown(report))

    @classmethod
    def validate_inputs(
        cls,
        family: str | None = None,
        rules: str | None = None,
        width: int | None = 1024,
        height: int | None = 1024,
        aspect_ratio: str | None = "",
        steps: int | None = 30,
        guidance: float | None = -1.0,
        count: int | None = 1,
        snap: bool | None = False,
    ) -> bool | str:
        """Refuse what the rules do not allow, where all of it is typed in."""
        sizes = {"width": width, "height": height, "aspect_ratio": aspect_ratio}
        given = {"family": family, "rules": rules, "steps": steps, "guidance": guidance, "count": count, "snap": snap}

        def check(*values: Any) -> None:
            check_settings(asked_for(*values[:6]), *values[6:])

        asked = ["width", "height", "aspect_ratio", "steps", "guidance", "count", "family", "rules", "snap"]
        return verdict(cls, sizes | given, (check_ratio, ["aspect_ratio"]), (check, asked))


def asked_for(width: int, height: int, aspect_ratio: str, steps: int, guidance: float, count: int) -> Settings:
    """The settings as they are typed in, a ratio as a size.

    Raises:
        ValueError: the aspect ratio is not one, or beyond 16:1.
    """
    if aspect_ratio.strip():
        width, height = size_of_ratio(aspect_ratio, width * height)
    return Settings(width, height, steps, guidance, count)


def check_ratio(aspect_ratio: str) -> None:
    """Raise ValueError when a text is not an aspect ratio."""
    asked_for(1024, 1024, aspect_ratio, 1, 1.0, 1)


def check_settings(asked: Settings, family: str, rules: str, snap: bool) -> None:
    """Raise ValueError with all that is not allowed, unless it is snapped."""
    wrong = explained(asked, family, rules)
    if wrong and not snap:
        raise ValueError("; ".join(wrong) + ". Change it, or turn snap on.")
