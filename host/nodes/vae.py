"""ComfyUI's nodes between images and latents."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..schema import io
from ..schema.declare import Nodes, integer

CATEGORY = "model/latent"


def checked_vae(vae: Any) -> Any:
    """Return a VAE, or raise ValueError where its checkpoint holds none."""
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
            search_aliases=["decode", "decode latent", "latent to image", "render latent"],
            inputs=[
                io.Latent.Input("samples", tooltip="The latents."),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
            ],
            outputs=[io.Image.Output(tooltip="The images.")],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: Any) -> io.NodeOutput:
        """Decode."""
        return io.NodeOutput(checked_vae(vae).decode(samples["samples"]))


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
            search_aliases=["encode", "encode image", "image to latent"],
            inputs=[
                io.Image.Input("pixels", tooltip="The images; sides are cropped to multiples of 8 px."),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
            ],
            outputs=[io.Latent.Output(tooltip="The latents.")],
        )

    @classmethod
    def execute(cls, pixels: Tensor, vae: Any) -> io.NodeOutput:
        """Encode."""
        return io.NodeOutput({"samples": checked_vae(vae).encode(pixels)})


class VAEEncodeForInpaint(io.ComfyNode):
    """ComfyUI's VAE Encode (for Inpainting)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="VAEEncodeForInpaint",
            display_name="VAE Encode (for Inpainting)",
            category=CATEGORY,
            description="Turns images into latents, with the masked part made grey and marked for repainting.",
            inputs=[
                io.Image.Input("pixels", tooltip="The images; sides are cropped to multiples of 8 px."),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
                io.Mask.Input("mask", tooltip="1 where the image is repainted."),
                io.Int.Input(
                    "grow_mask_by", default=6, min=0, max=64, step=1, tooltip="Pixels by which the mask grows."
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The latents with their mask.")],
        )

    @classmethod
    def execute(cls, pixels: Tensor, vae: Any, mask: Tensor, grow_mask_by: int) -> io.NodeOutput:
        """Blank the masked part and encode."""
        ratio = checked_vae(vae).spacial_compression_encode()
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


TILED = Nodes(CATEGORY)


def _tile_inputs(step: int) -> list[io.Input]:
    return [
        integer("tile_size", 512, 64, 4096, step, advanced=True, tooltip="Side of a tile in pixels."),
        integer("overlap", 64, 0, 4096, 32, advanced=True, tooltip="Pixels that neighbours share."),
        integer("temporal_size", 64, 8, 4096, 4, advanced=True, tooltip="Of videos alone: frames at a time."),
        integer("temporal_overlap", 8, 4, 4096, 4, advanced=True, tooltip="Of videos alone: frames shared."),
    ]


@TILED(
    "VAEDecodeTiled",
    "VAE Decode (Tiled)",
    [io.Latent.Input("samples"), io.Vae.Input("vae"), *_tile_inputs(32)],
    [io.Image],
)
def decode_tiled(
    vae: Any,
    samples: dict[str, Any],
    tile_size: int,
    overlap: int = 64,
    temporal_size: int = 64,
    temporal_overlap: int = 8,
) -> Tensor:
    """Turn latents into images in tiles, which takes less memory."""
    overlap = tile_size // 4 if tile_size < overlap * 4 else overlap
    ratio = checked_vae(vae).spacial_compression_decode()
    return vae.decode_tiled(samples["samples"], tile_size // ratio, tile_size // ratio, overlap // ratio)


@TILED(
    "VAEEncodeTiled",
    "VAE Encode (Tiled)",
    [io.Image.Input("pixels"), io.Vae.Input("vae"), *_tile_inputs(64)],
    [io.Latent],
)
def encode_tiled(
    vae: Any, pixels: Tensor, tile_size: int, overlap: int, temporal_size: int = 64, temporal_overlap: int = 8
) -> dict[str, Any]:
    """Turn images into latents in tiles, which takes less memory."""
    return {"samples": checked_vae(vae).encode_tiled(pixels, tile_size, tile_size, overlap)}


NODES: list[type[io.ComfyNode]] = [VAEDecode, VAEEncode, VAEEncodeForInpaint, *TILED]
