"""ComfyUI's core nodes for transparent images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import folder_paths
from ..schema import io

FOLDER = "background_removal"
CHANNELS = ["red", "green", "blue", "alpha"]
REFUSED = (
    "no library that the command line uses runs BiRefNet; run this workflow in ComfyUI, or put Cut Out Foreground "
    "(TesseraCutOut) in its place"
)


class InvertMask(io.ComfyNode):
    """ComfyUI's Invert Mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="InvertMask",
            display_name="Invert Mask",
            category="image/mask",
            description="Inverts a mask: 1 becomes 0, and 0 becomes 1.",
            search_aliases=["reverse mask", "flip mask"],
            inputs=[io.Mask.Input("mask", tooltip="The mask.")],
            outputs=[io.Mask.Output(tooltip="The inverted mask.")],
        )

    @classmethod
    def execute(cls, mask: Tensor) -> io.NodeOutput:
        """Invert it."""
        return io.NodeOutput(1.0 - mask)


class ImageToMask(io.ComfyNode):
    """ComfyUI's Convert Image to Mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="ImageToMask",
            display_name="Convert Image to Mask",
            category="image/mask",
            description="Takes one channel of an image as a mask.",
            search_aliases=["extract channel", "channel to mask"],
            inputs=[
                io.Image.Input("image", tooltip="The image, or a batch."),
                io.Combo.Input("channel", options=CHANNELS, tooltip="Which channel; an image without alpha has none."),
            ],
            outputs=[io.Mask.Output(tooltip="The channel, 0 to 1.")],
        )

    @classmethod
    def execute(cls, image: Tensor, channel: str) -> io.NodeOutput:
        """Take the channel."""
        number = CHANNELS.index(channel)
        if number >= image.shape[-1]:
            raise ValueError(f"the image has {image.shape[-1]} channels, and no {channel}; choose another channel.")
        return io.NodeOutput(image[..., number])


class JoinImageWithAlpha(io.ComfyNode):
    """ComfyUI's Join Image with Alpha."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="JoinImageWithAlpha",
            display_name="Join Image with Alpha",
            category="image/compositing",
            description="Makes an image transparent where a mask is white.",
            search_aliases=["add transparency", "apply alpha", "composite alpha", "RGBA"],
            inputs=[
                io.Image.Input("image", tooltip="The image, or a batch."),
                io.Mask.Input("alpha", tooltip="1 where the image becomes transparent; takes its size."),
            ],
            outputs=[io.Image.Output(tooltip="The image with transparency.")],
        )

    @classmethod
    def execute(cls, image: Tensor, alpha: Tensor) -> io.NodeOutput:
        """Join; the shorter batch is repeated."""
        count = max(len(image), len(planes := alpha.reshape(-1, 1, *alpha.shape[-2:])))
        seen = 1.0 - F.interpolate(planes.to(image), size=image.shape[1:3], mode="bilinear").movedim(1, -1)
        images, seen = (each[torch.arange(count) % len(each)] for each in (image[..., :3], seen))
        return io.NodeOutput(torch.cat([images, seen], -1))


class LoadBackgroundRemovalModel(io.ComfyNode):
    """ComfyUI's Load Background Removal Model, which is known here so that workflows can name it, but not run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="LoadBackgroundRemovalModel",
            display_name="Load Background Removal Model",
            category="model/loaders",
            description="Loads a model that finds what is in front, in ComfyUI; the command line has none.",
            inputs=[
                io.Combo.Input(
                    "bg_removal_name",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="The file in models/background_removal.",
                )
            ],
            outputs=[io.BackgroundRemoval.Output("bg_model", tooltip="The model.")],
        )

    @classmethod
    def execute(cls, bg_removal_name: str) -> io.NodeOutput:
        """Refuse."""
        raise NotImplementedError(REFUSED)

    @classmethod
    def validate_inputs(cls, bg_removal_name: str) -> bool | str:
        """Refuse before the run."""
        return REFUSED


class RemoveBackground(io.ComfyNode):
    """ComfyUI's Remove Background, which no model reaches here."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="RemoveBackground",
            display_name="Remove Background",
            category="image/background removal",
            description="Finds what is in front with a model, in ComfyUI; the command line has none.",
            inputs=[
                io.BackgroundRemoval.Input("bg_removal_model", tooltip="The model that finds it."),
                io.Image.Input("image", tooltip="The image, or a batch."),
            ],
            outputs=[io.Mask.Output(display_name="mask", tooltip="1 where something is in front.")],
        )

    @classmethod
    def execute(cls, bg_removal_model: object, image: Tensor) -> io.NodeOutput:
        """Refuse."""
        raise NotImplementedError(REFUSED)


NODES: list[type[io.ComfyNode]] = [
    InvertMask,
    ImageToMask,
    JoinImageWithAlpha,
    LoadBackgroundRemovalModel,
    RemoveBackground,
]
