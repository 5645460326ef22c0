"""A host's VAE (ComfyUI's `comfy.sd.VAE`) with other parts."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

PLAIN = "tessera_plain_vae"

Tiled = Callable[[Callable[[Tensor], Tensor], Tensor, int, float], Tensor]
"""Surrounds tiled work: receives it, what goes in (B, C, ..., H, W), the overlap of the tiles in pixels of what goes
in, and how much larger what comes out is."""


def decoded(vae: Any, samples: Tensor) -> Tensor:
    """Return the images (B, H, W, C) of latents, as the node VAEDecode does: frames (B, T, H, W, C) follow each other.

    Args:
        vae: a host's VAE.
        samples: latents (B, C, h, w), or (B, C, T, h, w) of VAEs that know frames, such as Qwen-Image's.
    """
    images = vae.decode(samples)
    return images.flatten(0, 1) if images.ndim == 5 else images


def plain_vae(vae: Any) -> Any:
    """Return the VAE from which `rewired` made `vae`; `vae` itself where it did not."""
    return getattr(vae, PLAIN, vae)


def tiles_itself(vae: Any) -> bool:
    """Return whether the network of a host's VAE divides images into tiles of its own, as SeedVR2's does."""
    return bool(getattr(vae, "handles_tiling", False))


def rewired(vae: Any, autoencoder: Any, check_crop: Callable[[int, int, int], None], around_tiles: Tiled) -> Any:
    """Return a VAE that shares everything with `vae` but the parts that are given.

    Args:
        vae: a host's VAE; it is not changed.
        autoencoder: encodes and decodes in place of its own.
        check_crop: receives the (height, width) of images, and the pixels of which sides have to be a multiple,
            before the host crops them.
        around_tiles: surrounds tiled encoding and decoding, asked for or as the fallback when memory runs out. The
            tiles go through the plain autoencoder.
    """
    plain = plain_vae(vae)
    changed = copy.copy(plain)
    setattr(changed, PLAIN, plain)
    changed.first_stage_model = autoencoder
    changed.vae_encode_crop_pixels = partial(_crop, plain, check_crop)
    changed.decode_tiled_ = partial(_decode_tiled, plain, around_tiles)
    changed.encode_tiled_ = partial(_encode_tiled, plain, around_tiles)
    changed.decode_tiled_3d = partial(_decode_tiled_3d, plain, around_tiles)
    changed.encode_tiled_3d = partial(_encode_tiled_3d, plain, around_tiles)
    return changed


def _crop(plain: Any, check_crop: Callable[[int, int, int], None], pixels: Tensor) -> Tensor:
    height, width = pixels.shape[-3:-1]
    check_crop(height, width, plain.spacial_compression_encode())
    return plain.vae_encode_crop_pixels(pixels)


def _decode_tiled(
    plain: Any, around: Tiled, samples: Tensor, tile_x: int = 64, tile_y: int = 64, overlap: int = 16
) -> Tensor:
    """Sizes in latents."""
    run = partial(plain.decode_tiled_, tile_x=tile_x, tile_y=tile_y, overlap=overlap)
    return around(run, samples, overlap, plain.spacial_compression_decode())


def _encode_tiled(
    plain: Any, around: Tiled, pixels: Tensor, tile_x: int = 512, tile_y: int = 512, overlap: int = 64
) -> Tensor:
    """Sizes in pixels."""
    run = partial(plain.encode_tiled_, tile_x=tile_x, tile_y=tile_y, overlap=overlap)
    factor = plain.spacial_compression_encode()
    return around(run, pixels, math.ceil(overlap / factor) * factor, 1 / factor)


def _decode_tiled_3d(
    plain: Any,
    around: Tiled,
    samples: Tensor,
    tile_t: int = 999,
    tile_x: int = 32,
    tile_y: int = 32,
    overlap: tuple[int, int, int] = (1, 8, 8),
) -> Tensor:
    """samples: (B, C, T, h, w); sizes in latents."""
    run = partial(plain.decode_tiled_3d, tile_t=tile_t, tile_x=tile_x, tile_y=tile_y, overlap=overlap)
    return around(run, samples, max(overlap[1:]), plain.spacial_compression_decode())


def _encode_tiled_3d(
    plain: Any,
    around: Tiled,
    samples: Tensor,
    tile_t: int = 9999,
    tile_x: int = 512,
    tile_y: int = 512,
    overlap: tuple[int, int, int] = (1, 64, 64),
) -> Tensor:
    """samples: (B, C, T, H, W); sizes in pixels."""
    run = partial(plain.encode_tiled_3d, tile_t=tile_t, tile_x=tile_x, tile_y=tile_y, overlap=overlap)
    factor = plain.spacial_compression_encode()
    return around(run, samples, math.ceil(max(overlap[1:]) / factor) * factor, 1 / factor)
