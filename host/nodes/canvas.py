"""ComfyUI's core nodes that widen, enlarge and change the contrast of images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..images.scaling import UPSCALE_METHODS, resize
from ..schema import io
from ..schema.limits import MAX_RESOLUTION

GREY = 0.5


class ImagePadForOutpaint(io.ComfyNode):
    """ComfyUI's Pad Image for Outpainting."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        sides = [
            io.Int.Input(side, default=0, min=0, max=MAX_RESOLUTION, step=8, tooltip="How much to add, in px.")
            for side in ("left", "top", "right", "bottom")
        ]
        return io.Schema(
            node_id="ImagePadForOutpaint",
            display_name="Pad Image for Outpainting",
            category="image/transform",
            description="Adds a grey margin to an image, and makes a mask of it for inpainting.",
            search_aliases=["extend canvas", "expand image"],
            inputs=[
                io.Image.Input("image", tooltip="The image, or a batch."),
                *sides,
                io.Int.Input(
                    "feathering",
                    default=40,
                    min=0,
                    max=MAX_RESOLUTION,
                    advanced=True,
                    tooltip="How far the mask fades into the image, in px.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="The wider image."),
                io.Mask.Output(tooltip="White in the margin."),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, left: int, top: int, right: int, bottom: int, feathering: int) -> io.NodeOutput:
        """Pad; sides without margin do not fade."""
        height, width = image.shape[1:3]
        wider = F.pad(image, (0, 0, left, right, top, bottom), value=GREY)
        rows = _distance(height, top > 0, bottom > 0)[:, None]
        columns = _distance(width, left > 0, right > 0)[None, :]
        inside = torch.zeros(height, width)
        if 0 < 2 * feathering < min(height, width):
            nearest = torch.minimum(rows, columns).clamp(max=feathering)
            inside = ((feathering - nearest) / feathering).square()
        mask = F.pad(inside, (left, right, top, bottom), value=1.0)
        return io.NodeOutput(wider, mask[None])


def _distance(length: int, before: bool, after: bool) -> Tensor:
    """Return (length,): how far each place is from the ends that count."""
    places = torch.arange(length, dtype=torch.float32)
    far = torch.full_like(places, float("inf"))
    return torch.minimum(places if before else far, length - places if after else far)


class ImageScaleBy(io.ComfyNode):
    """ComfyUI's Upscale Image By."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="ImageScaleBy",
            display_name="Upscale Image By",
            category="image/upscaling",
            description="Enlarges or shrinks images by a factor.",
            inputs=[
                io.Image.Input("image", tooltip="The image, or a batch."),
                io.Combo.Input("upscale_method", options=UPSCALE_METHODS, tooltip="How pixels between are found."),
                io.Float.Input("scale_by", default=1.0, min=0.01, max=8.0, step=0.01, tooltip="The factor."),
            ],
            outputs=[io.Image.Output(tooltip="The larger or smaller image.")],
        )

    @classmethod
    def execute(cls, image: Tensor, upscale_method: str, scale_by: float) -> io.NodeOutput:
        """Resize."""
        height, width = (round(side * scale_by) for side in image.shape[1:3])
        return io.NodeOutput(resize(image, width, height, upscale_method))


class AdjustContrast(io.ComfyNode):
    """ComfyUI's Adjust Contrast."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="AdjustContrast",
            display_name="Adjust Contrast",
            category="image/adjustments",
            description="Moves colours away from middle grey, or towards it.",
            search_aliases=["contrast"],
            is_experimental=True,
            inputs=[
                io.Image.Input("images", tooltip="The images."),
                io.Float.Input("factor", default=1.0, min=0.0, max=2.0, tooltip="1 changes nothing, more is stronger."),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The changed images.")],
        )

    @classmethod
    def execute(cls, images: Tensor, factor: float) -> io.NodeOutput:
        """Stretch about middle grey."""
        return io.NodeOutput(((images - GREY) * factor + GREY).clamp(0, 1))


NODES: list[type[io.ComfyNode]] = [ImagePadForOutpaint, ImageScaleBy, AdjustContrast]
