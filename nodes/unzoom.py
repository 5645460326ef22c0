"""Unzoom: surround an image with a margin that a model paints."""

from __future__ import annotations

from torch import Tensor

from ..contract import io
from ..images.outpaint import FILLS, margin_mask, margins, padded


class TesseraUnzoom(io.ComfyNode):
    """Surround an image with a margin to paint."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraUnzoom",
            display_name="Unzoom",
            category="Tessera/image",
            description="Makes an image larger by a factor, with a mask of the margin that a model is to paint.",
            search_aliases=[
                "outpaint",
                "outpainting",
                "zoom out",
                "uncrop",
                "expand image",
                "pad image",
                "canvas size",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The image, or a batch."),
                io.Float.Input(
                    "factor",
                    default=1.5,
                    min=1.0,
                    max=4.0,
                    step=0.05,
                    tooltip="How many times as wide and high the result is; margins are rounded to 8 px.",
                ),
                io.Int.Input(
                    "feather",
                    default=16,
                    min=0,
                    max=1024,
                    optional=True,
                    tooltip="How far the mask fades into the image, in px, so that the painted margin blends in.",
                ),
                io.Combo.Input(
                    "fill",
                    options=list(FILLS),
                    default="grey",
                    optional=True,
                    tooltip="What the margin holds before it is painted: grey for inpainting models, the edge's "
                    "pixels, or the image mirrored for a denoise below 1.",
                ),
                _place("x", "across", "left", "right"),
                _place("y", "down", "top", "bottom"),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The image with its margin."),
                io.Mask.Output(display_name="mask", tooltip="1 in the margin, fading into the image."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        factor: float,
        feather: int = 16,
        fill: str = "grey",
        x: float = 0.5,
        y: float = 0.5,
    ) -> io.NodeOutput:
        """Pad, and make the mask."""
        size = (image.shape[1], image.shape[2])
        around = margins(size, factor, x, y)
        return io.NodeOutput(padded(image, around, fill), margin_mask(size, around, feather))


def _place(name: str, along: str, first: str, last: str) -> io.Input:
    return io.Float.Input(
        name,
        default=0.5,
        min=0.0,
        max=1.0,
        step=0.05,
        optional=True,
        advanced=True,
        tooltip=f"Where the image lies {along} the larger one: 0 {first}, 0.5 in the middle, 1 {last}.",
    )
