"""Images to latents and back (drop-in replacement for `comfy.sd.VAE`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..runtime import devices
from ..runtime.running import make_patcher, running
from .tiles import three_passes

log = logging.getLogger(__name__)

DECODE_COST = 2178 * 64
"""Bytes of activations for each latent or pixel, in elements: measured by ComfyUI for AutoencoderKL."""

ENCODE_COST = 1767


class VAE:
    """An `AutoencoderKL` of diffusers, with images in the layout and range of nodes.

    Encoding gives the mean of the posterior, so it is deterministic.

    Args:
        first_stage_model: the diffusers module.
    """

    def __init__(self, first_stage_model: torch.nn.Module) -> None:
        self.first_stage_model: Any = first_stage_model
        self.patcher = make_patcher(first_stage_model)
        config = self.first_stage_model.config
        self.latent_channels: int = config.latent_channels
        self.latent_dim = 2
        self.output_channels: int = config.out_channels
        self.downscale_ratio = self.upscale_ratio = 2 ** (len(config.block_out_channels) - 1)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.patcher.load_device

    @property
    def vae_dtype(self) -> torch.dtype:
        """The precision in which it computes."""
        return self.first_stage_model.dtype

    def spacial_compression_decode(self) -> int:
        """Return how many pixels lie along the side of one latent."""
        return self.upscale_ratio

    def spacial_compression_encode(self) -> int:
        """Return how many pixels lie along the side of one latent."""
        return self.downscale_ratio

    def temporal_compression_decode(self) -> None:
        """Return None: images have no time."""

    def vae_encode_crop_pixels(self, pixels: Tensor) -> Tensor:
        """Crop the middle of images (B, H, W, C) to multiples of the compression and to the VAE's channels."""
        for axis in (1, 2):
            length = pixels.shape[axis] // self.downscale_ratio * self.downscale_ratio
            if not length:
                raise ValueError(
                    f"an image of {pixels.shape[2]} x {pixels.shape[1]} px is too small to encode, "
                    f"expected at least {self.downscale_ratio} px a side"
                )
            pixels = pixels.narrow(axis, pixels.shape[axis] % self.downscale_ratio // 2, length)
        return pixels[..., : self.output_channels]

    def decode(self, samples_in: Tensor) -> Tensor:
        """Return images (B, H, W, C) in 0..1 of latents (B, L, h, w).

        Raises:
            ValueError: latents of another VAE, or an image that is not finite.
        """
        self._check_latent(samples_in)
        cost = DECODE_COST * samples_in.shape[2] * samples_in.shape[3]
        with running(self.patcher), torch.no_grad():
            images = self._in_batches(samples_in, self._decode, cost)
            if images is None:
                log.warning("out of memory while decoding; decoding again in tiles")
                images = self.decode_tiled_(samples_in)
        return to_unit_range(_checked(images, "images")).movedim(1, -1)

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """Return latents (B, L, h, w) of images (B, H, W, C) in 0..1."""
        pixels = self.vae_encode_crop_pixels(pixel_samples).movedim(-1, 1)
        cost = ENCODE_COST * pixels.shape[2] * pixels.shape[3]
        with running(self.patcher), torch.no_grad():
            samples = self._in_batches(pixels, self._encode, cost)
            if samples is None:
                log.warning("out of memory while encoding; encoding again in tiles")
                samples = self.encode_tiled_(pixels)
        return _checked(samples, "latents")

    def decode_tiled(self, samples: Tensor, tile_x: int = 64, tile_y: int = 64, overlap: int = 16) -> Tensor:
        """Decode in tiles of `tile_x` by `tile_y` latents."""
        self._check_latent(samples)
        with running(self.patcher), torch.no_grad():
            images = self.decode_tiled_(samples, tile_x, tile_y, overlap)
        return to_unit_range(_checked(images, "images")).movedim(1, -1)

    def encode_tiled(self, pixel_samples: Tensor, tile_x: int = 512, tile_y: int = 512, overlap: int = 64) -> Tensor:
        """Encode in tiles of `tile_x` by `tile_y` pixels."""
        pixels = self.vae_encode_crop_pixels(pixel_samples).movedim(-1, 1)
        with running(self.patcher), torch.no_grad():
            return _checked(self.encode_tiled_(pixels, tile_x, tile_y, overlap), "latents")

    def _check_latent(self, samples: Tensor) -> None:
        if samples.ndim != 4 or samples.shape[1] != self.latent_channels:
            raise ValueError(
                f"a latent has the shape {tuple(samples.shape)}, expected {self.latent_channels} channels "
                "in (batch, channels, height, width); use the VAE and the empty latent of the same model family"
            )

    def _decode(self, samples: Tensor) -> Tensor:
        out = self.first_stage_model.decode(samples.to(self.device, self.vae_dtype)).sample
        return out.to("cpu", torch.float32)

    def _encode(self, pixels: Tensor) -> Tensor:
        pixels = (pixels * 2.0 - 1.0).to(self.device, self.vae_dtype)
        return self.first_stage_model.encode(pixels).latent_dist.mode().to("cpu", torch.float32)

    def _in_batches(self, samples: Tensor, function: Callable[[Tensor], Tensor], cost: int) -> Tensor | None:
        """Return the function on as many samples at once as memory holds; None when it does not hold one."""
        room = devices.free_memory(self.device) // (cost * self.vae_dtype.itemsize)
        try:
            return torch.cat([function(batch) for batch in samples.split(max(1, room))])
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None

    def decode_tiled_(self, samples: Tensor, tile_x: int = 64, tile_y: int = 64, overlap: int = 16) -> Tensor:
        """Return images (B, C, H, W) in -1..1, in tiles; what both `decode_tiled` and a full memory come to."""
        return three_passes(samples, self._decode, tile_x, tile_y, overlap, self.upscale_ratio, self.output_channels)

    def encode_tiled_(self, pixel_samples: Tensor, tile_x: int = 512, tile_y: int = 512, overlap: int = 64) -> Tensor:
        """Return latents of images (B, C, H, W) in 0..1, in tiles.

        What both `encode_tiled` and a full memory come to.
        """
        scale = 1 / self.downscale_ratio
        return three_passes(pixel_samples, self._encode, tile_x, tile_y, overlap, scale, self.latent_channels)


def _checked(made: Tensor, what: str) -> Tensor:
    """Return what a VAE made of a batch.

    Raises:
        ValueError: some of it is not a number, which would be a black image.
    """
    broken = (~made.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"the VAE made {what} with values that are not finite (NaN) of number {broken[0] + 1} of {len(made)}; "
            "look at what goes into it, or use another VAE, or --dtype fp32"
        )
    return made


class PackedVAE(VAE):
    """A VAE whose latents are squares of 2 x 2 in one cell, normed by statistics of training: Flux.2's.

    Args:
        first_stage_model: an `AutoencoderKL`.
        mean, variance: of packed latents, a number for each channel.
    """

    EPS = 1e-4
    SIDE = 2

    def __init__(self, first_stage_model: torch.nn.Module, mean: Tensor, variance: Tensor) -> None:
        super().__init__(first_stage_model)
        self.mean, self.deviation = mean.float()[:, None, None], (variance.float() + self.EPS).sqrt()[:, None, None]
        self.latent_channels = len(mean)
        self.downscale_ratio = self.upscale_ratio = self.upscale_ratio * self.SIDE

    def _decode(self, samples: Tensor) -> Tensor:
        return super()._decode(F.pixel_shuffle(samples.float().cpu() * self.deviation + self.mean, self.SIDE))

    def _encode(self, pixels: Tensor) -> Tensor:
        return (F.pixel_unshuffle(super()._encode(pixels), self.SIDE) - self.mean) / self.deviation


def to_unit_range(images: Tensor) -> Tensor:
    """Scale -1..1 to 0..1, and clamp it."""
    return ((images + 1.0) / 2.0).clamp(0.0, 1.0)
