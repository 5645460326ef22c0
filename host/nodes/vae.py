"""ComfyUI's nodes between images and latents."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..schema import io

CATEGORY = "model/latent"


def _checked(vae: Any) -> Any:
    if vae is None:
        raise ValueError("the checkpoint holds no VAE; load one with VAELoader and link it here")
    return vae


class VAEDecode(io.ComfyNode):
    """ComfyUI's VAE Decode."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="VAEDecode",
            display_name="VAE Decode",
            category=CATEGORY,
            description="Turns latents into images.",
            inputs=[
                io.Latent.Input("samples", tooltip="The latents."),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
            ],
            outputs=[io.Image.Output(tooltip="The images.")],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: Any) -> io.NodeOutput:
        """Decode."""
        return io.NodeOutput(_checked(vae).decode(samples["samples"]))


class VAEEncode(io.ComfyNode):
    """ComfyUI's VAE Encode."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="VAEEncode",
            display_name="VAE Encode",
            category=CATEGORY,
            description="Turns images into latents.",
            inputs=[
                io.Image.Input("pixels", tooltip="The images; sides are cropped to multiples of 8 px."),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
            ],
            outputs=[io.Latent.Output(tooltip="The latents.")],
        )

    @classmethod
    def execute(cls, pixels: Tensor, vae: Any) -> io.NodeOutput:
        """Encode."""
        return io.NodeOutput({"samples": _checked(vae).encode(pixels)})


class VAEEncodeForInpaint(io.ComfyNode):
    """ComfyUI's VAE Encode (for Inpainting)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="VAEEncodeForInpaint",
            display_name="VAE Encode (for Inpainting)",
            category=CATEGORY,
            description="Turns images into latents, with the masked part made grey and marked to be drawn anew.",
            inputs=[
                io.Image.Input("pixels", tooltip="The images; sides are cropped to multiples of 8 px."),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
                io.Mask.Input("mask", tooltip="1 where the image is to be drawn anew."),
                io.Int.Input(
                    "grow_mask_by", default=6, min=0, max=64, step=1, tooltip="Pixels by which the mask grows."
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The latents with their mask.")],
        )

    @classmethod
    def execute(cls, pixels: Tensor, vae: Any, mask: Tensor, grow_mask_by: int) -> io.NodeOutput:
        """Blank the masked part and encode."""
        ratio = _checked(vae).spacial_compression_encode()
        mask = F.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]), size=pixels.shape[1:3], mode="bilinear")
        pixels, mask = vae.vae_encode_crop_pixels(pixels), crop_to_multiple(mask, ratio)
        keep = (1.0 - mask.round()).movedim(1, -1)
        grown = grow(mask.round(), grow_mask_by) if grow_mask_by else mask
        height, width = mask.shape[2:]
        noise_mask = grown[:, :, :height, :width].round()
        return io.NodeOutput({"samples": vae.encode((pixels - 0.5) * keep + 0.5), "noise_mask": noise_mask})


def crop_to_multiple(mask: Tensor, ratio: int) -> Tensor:
    """Return the middle of a mask (B, 1, H, W) whose sides are multiples of `ratio`."""
    for axis in (2, 3):
        length = mask.shape[axis]
        mask = mask.narrow(axis, length % ratio // 2, length // ratio * ratio)
    return mask


def grow(mask: Tensor, pixels: int) -> Tensor:
    """Return a mask (B, 1, H, W) of zeros and ones that covers a square of `pixels` around each one.

    Even squares make the result one pixel larger.
    """
    kernel = torch.ones(1, 1, pixels, pixels)
    return F.conv2d(mask, kernel, padding=math.ceil((pixels - 1) / 2)).clamp(0, 1)


NODES: list[type[io.ComfyNode]] = [VAEDecode, VAEEncode, VAEEncodeForInpaint]
