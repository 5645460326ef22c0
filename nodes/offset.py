"""Offset Image: move a seam into view, or to where it can be inpainted."""

from __future__ import annotations

from torch import Tensor

from ..contract import io
from ..tiling.roll import offset


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
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="How far to move right, in widths; 0.5 puts the left and right edges in the middle.",
                ),
                io.Float.Input(
                    "y",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="How far to move down, in heights; 0.5 puts the top and bottom edges in the middle.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The rolled image, of the same size.")],
        )

    @classmethod
    def execute(cls, image: Tensor, x: float = 0.5, y: float = 0.5) -> io.NodeOutput:
        """Roll the image."""
        return io.NodeOutput(offset(image, x, y))
