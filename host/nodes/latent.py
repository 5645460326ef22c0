"""ComfyUI's core nodes that make latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..images.latent_resize import CROPS, METHODS, resize_latents
from ..models.latent_formats import LatentFormat
from ..schema import io
from ..schema.limits import MAX_RESOLUTION

PIXELS_PER_LATENT = LatentFormat.spacial_downscale_ratio
SMALLEST_SIDE = 64
"""What LatentUpscale enlarges a side to at least, in pixels."""


def _size_inputs(default: int, step: int) -> list[io.Input]:
    return [
        io.Int.Input("width", default=default, min=16, max=MAX_RESOLUTION, step=step, tooltip="Width in pixels."),
        io.Int.Input("height", default=default, min=16, max=MAX_RESOLUTION, step=step, tooltip="Height in pixels."),
        io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="How many images are sampled at once."),
    ]


def _empty(batch_size: int, channels: int, height: int, width: int) -> io.NodeOutput:
    samples = torch.zeros(batch_size, channels, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
    return io.NodeOutput({"samples": samples, "downscale_ratio_spacial": PIXELS_PER_LATENT})


class EmptyLatentImage(io.ComfyNode):
    """Empty latents of 4 channels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="EmptyLatentImage",
            display_name="Empty Latent Image",
            category="model/latent",
            description="Makes empty latents, to be filled by a sampler from noise alone.",
            search_aliases=["empty", "empty latent", "new latent", "create latent", "blank latent", "blank"],
            inputs=_size_inputs(512, 8),
            outputs=[io.Latent.Output(tooltip="The empty latents.")],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> io.NodeOutput:
        """Make the latents."""
        return _empty(batch_size, 4, height, width)


class EmptySD3LatentImage(io.ComfyNode):
    """Empty latents of 16 channels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="EmptySD3LatentImage",
            display_name="EmptySD3LatentImage",
            category="model/latent/stable diffusion",
            description="Makes empty latents of 16 channels, for Flux and Stable Diffusion 3.",
            inputs=_size_inputs(1024, 16),
            outputs=[io.Latent.Output(tooltip="The empty latents.")],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> io.NodeOutput:
        """Make the latents."""
        return _empty(batch_size, 16, height, width)


class SetLatentNoiseMask(io.ComfyNode):
    """Latents that change only where a mask is white."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="SetLatentNoiseMask",
            display_name="Set Latent Noise Mask",
            category="model/latent",
            description="Lets samplers change latents only where a mask is white.",
            inputs=[
                io.Latent.Input("samples", tooltip="The latents of the image to change."),
                io.Mask.Input("mask", tooltip="White where the image may change; any size."),
            ],
            outputs=[io.Latent.Output(tooltip="The latents with the mask.")],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], mask: Tensor) -> io.NodeOutput:
        """Attach the mask."""
        return io.NodeOutput({**samples, "noise_mask": mask.reshape(-1, 1, *mask.shape[-2:])})


class RepeatLatentBatch(io.ComfyNode):
    """A batch of latents, several times."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="RepeatLatentBatch",
            display_name="Repeat Latent Batch",
            category="model/latent/batch",
            description="Repeats latents, to make several images of one.",
            search_aliases=["duplicate latent", "clone latent"],
            inputs=[
                io.Latent.Input("samples", tooltip="The latents; of several, the whole batch is repeated."),
                io.Int.Input("amount", default=1, min=1, max=64, tooltip="How often."),
            ],
            outputs=[io.Latent.Output(tooltip="The longer batch.")],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], amount: int) -> io.NodeOutput:
        """Repeat latents and masks; each copy has its own place in the noise of a seed."""
        found = samples["samples"]
        made = {**samples, "samples": found.repeat(amount, *[1] * (found.ndim - 1))}
        mask = samples.get("noise_mask")
        if mask is not None and mask.shape[0] > 1:
            made["noise_mask"] = mask.repeat(amount, *[1] * (mask.ndim - 1))
        places = samples.get("batch_index")
        if places is not None:
            step = max(places) - min(places) + 1
            made["batch_index"] = [place + step * copy for copy in range(amount) for place in places]
        return io.NodeOutput(made)


class LatentUpscale(io.ComfyNode):
    """ComfyUI's Upscale Latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="LatentUpscale",
            display_name="Upscale Latent",
            category="model/latent",
            description="Resizes latents to a size in pixels, to be sampled again with a low denoise.",
            inputs=[
                io.Latent.Input("samples", tooltip="The latents."),
                io.Combo.Input("upscale_method", options=METHODS, tooltip="How cells in between are found."),
                *(
                    io.Int.Input(
                        name,
                        default=512,
                        min=0,
                        max=MAX_RESOLUTION,
                        step=8,
                        tooltip=f"{name.capitalize()} in pixels; 0 keeps the proportions.",
                    )
                    for name in ("width", "height")
                ),
                io.Combo.Input("crop", options=CROPS, tooltip="Whether other proportions cut or squeeze."),
            ],
            outputs=[io.Latent.Output(tooltip="The latents in the new size.")],
            search_aliases=["enlarge latent", "resize latent"],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], upscale_method: str, width: int, height: int, crop: str) -> io.NodeOutput:
        """Resize them."""
        if width == height == 0:
            return io.NodeOutput(samples)
        found = samples["samples"]
        rows, columns = found.shape[-2:]
        width, height = (
            max(SMALLEST_SIDE, width or round(columns * max(SMALLEST_SIDE, height) / rows)),
            max(SMALLEST_SIDE, height or round(rows * max(SMALLEST_SIDE, width) / columns)),
        )
        resized = resize_latents(found, width // PIXELS_PER_LATENT, height // PIXELS_PER_LATENT, upscale_method, crop)
        return io.NodeOutput({**samples, "samples": resized})


class LatentUpscaleBy(io.ComfyNode):
    """ComfyUI's Upscale Latent By."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="LatentUpscaleBy",
            display_name="Upscale Latent By",
            category="model/latent",
            description="Resizes latents by a factor, to be sampled again with a low denoise.",
            inputs=[
                io.Latent.Input("samples", tooltip="The latents."),
                io.Combo.Input("upscale_method", options=METHODS, tooltip="How cells in between are found."),
                io.Float.Input("scale_by", default=1.5, min=0.01, max=8.0, step=0.01, tooltip="Factor of both sides."),
            ],
            outputs=[io.Latent.Output(tooltip="The latents in the new size.")],
            search_aliases=["enlarge latent", "resize latent", "scale latent"],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], upscale_method: str, scale_by: float) -> io.NodeOutput:
        """Resize them."""
        found = samples["samples"]
        height, width = (max(1, round(side * scale_by)) for side in found.shape[-2:])
        return io.NodeOutput({**samples, "samples": resize_latents(found, width, height, upscale_method)})


NODES: list[type[io.ComfyNode]] = [
    EmptyLatentImage,
    EmptySD3LatentImage,
    SetLatentNoiseMask,
    RepeatLatentBatch,
    LatentUpscale,
    LatentUpscaleBy,
]
