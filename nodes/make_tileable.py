"""Make Tileable: make an existing texture repeat."""

from __future__ import annotations

from torch import Tensor

from ..contract import io
from ..tiling.axes import TILINGS
from ..tiling.tileable import make_tileable
from .inputs import TWO_AXES


class TesseraMakeTileable(io.ComfyNode):
    """Make an existing texture repeat, and mask where a model should inpaint it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraMakeTileable",
            display_name="Make Tileable",
            category="Tessera/tiling",
            description="Makes a photo or an existing texture repeat without a seam, and masks the border for one "
            "inpainting pass with a seamless model.",
            search_aliases=["make seamless", "tileable photo", "remove seam", "texture from photo", "offset filter"],
            inputs=[
                io.Image.Input("image", tooltip="The texture, or a batch of textures."),
                io.Int.Input(
                    "border",
                    default=32,
                    min=1,
                    max=2048,
                    optional=True,
                    tooltip="Width in px of the band along each edge that may change; the inside does not.",
                ),
                io.Combo.Input(
                    "tiling", options=TWO_AXES, default="both", optional=True, tooltip="Which edges should meet."
                ),
                io.Float.Input(
                    "lighting",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="How much of an uneven lighting is removed; 1 for photos that are brighter on one side. "
                    "It changes the inside, too.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The tileable texture, with a blended border."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="The border, with soft edges: what to inpaint, at a denoise of 0.5 to 1.",
                ),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, border: int = 32, tiling: str = "both", lighting: float = 0.0) -> io.NodeOutput:
        """Blend the border."""
        made, mask = make_tileable(image.movedim(-1, 1), TILINGS[tiling], border, lighting)
        return io.NodeOutput(made.clamp(0, 1).movedim(1, -1), mask.expand(len(image), -1, -1))
