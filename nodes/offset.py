"""Offset Image: move a seam into view, or to where it can be inpainted."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ..contract import io
from ..tiling.roll import offset
from .checks import verdict

UNITS = {"fraction": 1.0, "percent": 100.0}
"""What a whole side is in each unit."""
MOST = 100.0


class TesseraOffsetImage(io.ComfyNode):
    """Roll an image around its edges."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraOffsetImage",
            display_name="Offset Image",
            category="Tessera/tiling",
            description="Rolls an image: what leaves at one edge enters at the opposite one.",
            search_aliases=["offset", "roll", "shift texture", "wrap around", "half offset", "seamless", "tile"],
            inputs=[
                io.Image.Input("image", tooltip="The image, or a batch."),
                io.Float.Input(
                    "x",
                    default=0.5,
                    min=0.0,
                    max=MOST,
                    step=0.01,
                    optional=True,
                    tooltip="How far to move right, in widths; 0.5 puts the left and right edges in the middle.",
                ),
                io.Float.Input(
                    "y",
                    default=0.5,
                    min=0.0,
                    max=MOST,
                    step=0.01,
                    optional=True,
                    tooltip="How far to move down, in heights; 0.5 puts the top and bottom edges in the middle.",
                ),
                io.Combo.Input(
                    "unit",
                    options=list(UNITS),
                    default="fraction",
                    optional=True,
                    advanced=True,
                    tooltip="Whether x and y are fractions of the size, 0 to 1, or percent of it.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The rolled image, of the same size.")],
        )

    @classmethod
    def execute(cls, image: Tensor, x: float = 0.5, y: float = 0.5, unit: str = "fraction") -> io.NodeOutput:
        """Roll the image."""
        check_side("x", x, unit)
        check_side("y", y, unit)
        return io.NodeOutput(offset(image, x / UNITS[unit], y / UNITS[unit]))

    @classmethod
    def validate_inputs(cls, x: float | None = 0.5, y: float | None = 0.5, unit: str | None = "fraction") -> bool | str:
        """Check that x and y are not larger than a whole."""
        rules = [(partial(check_side, name), [name, "unit"]) for name in ("x", "y")]
        return verdict(cls, {"x": x, "y": y, "unit": unit}, *rules)


def check_side(name: str, value: float, unit: str) -> None:
    """Raise ValueError where `value` is more than a whole side."""
    if value > UNITS[unit]:
        raise ValueError(f"{name} is {value:g}; expected 0 to {UNITS[unit]:g}, or unit percent.")
