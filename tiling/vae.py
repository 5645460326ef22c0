"""A VAE that encodes and decodes on the torus, sharing the weights of the one it is made from."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from .axes import Axes, describe
from .circular import circular, wrapping_convolutions
from .wrap import check_halves, extend, fold

PLAIN_VAE = "tessera_plain_vae"


class CircularAutoencoder:
    """Stands in for an autoencoder: `encode` and `decode` run with circular convolutions, all else is its own.

    `pixel`: image pixels per latent pixel.
    """

    def __init__(self, network: Any, axes: Axes, pixel: int) -> None:
        self.network = network
        self.axes = axes
        self.pixel = pixel

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """The autoencoder's `encode`, pictures and latents taken as periodic."""
        with circular(self.network, self.axes):
            return self.network.encode(*args, **kwargs)

    def decode(self, latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The autoencoder's `decode` of latents (B, C, [T,] h, w), pictures and latents taken as periodic."""
        check_halves((latents.shape[-2], latents.shape[-1]), self.axes, self.pixel)
        with circular(self.network, self.axes):
            return self.network.decode(latents, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "network":  # asked for while a copy is made, before it has one
            raise AttributeError(name)
        return getattr(self.network, name)


def seamless_vae(vae: Any, axes: Axes) -> Any:
    """Return a VAE like `vae` whose pictures repeat along `axes`; `vae` itself stays as it is.

    Tiled encoding and decoding, asked for or as the host's fallback when memory runs out, keep plain convolutions and
    wrap the grid of tiles instead: wrapping each tile would give it the wrong neighbours.

    Args:
        vae: a host's VAE object (ComfyUI's `comfy.sd.VAE`); one made here before is replaced, not wrapped again.
        axes: along which axes pictures repeat; with none, the plain VAE comes back.

    Raises:
        ValueError: there is no autoencoder, or it has a layer without a periodic form (`NotPeriodicError`).
    """
    plain = getattr(vae, PLAIN_VAE, vae)
    if plain.first_stage_model is None:
        raise ValueError("The VAE is empty, as its checkpoint holds none; load one with a VAE loader.")
    if not any(axes):
        return plain
    list(wrapping_convolutions(plain.first_stage_model))
    seamless = copy.copy(plain)
    setattr(seamless, PLAIN_VAE, plain)
    seamless.first_stage_model = CircularAutoencoder(plain.first_stage_model, axes, plain.spacial_compression_decode())
    seamless.vae_encode_crop_pixels = partial(_crop_nothing, plain, axes)
    seamless.decode_tiled_ = partial(_decode_tiled, plain, axes)
    seamless.encode_tiled_ = partial(_encode_tiled, plain, axes)
    seamless.decode_tiled_3d = partial(_decode_tiled_3d, plain, axes)
    seamless.encode_tiled_3d = partial(_encode_tiled_3d, plain, axes)
    return seamless


def _crop_nothing(plain: Any, axes: Axes, pixels: Tensor) -> Tensor:
    """The host's crop of `pixels` (B, H, W, C) to whole latents, refused where it would break the repeat."""
    height, width = pixels.shape[-3:-1]
    factor = plain.spacial_compression_encode()
    units = factor * (2 if axes.brick else 1), factor * (2 if axes.half_drop else 1)
    if (axes.horizontal and width % units[0]) or (axes.vertical and height % units[1]):
        raise ValueError(
            f"The image is {width} x {height} px, but one whose {describe(axes)} needs sides that are multiples "
            f"of {max(units)} px; scale it first."
        )
    return plain.vae_encode_crop_pixels(pixels)


def _decode_tiled(
    plain: Any, axes: Axes, samples: Tensor, tile_x: int = 64, tile_y: int = 64, overlap: int = 16
) -> Tensor:
    """ComfyUI's `VAE.decode_tiled_` over a wrapped grid. samples: (B, C, h, w); sizes in latent pixels."""
    run = partial(plain.decode_tiled_, tile_x=tile_x, tile_y=tile_y, overlap=overlap)
    return _over_wrapped_grid(run, axes, samples, overlap, plain.spacial_compression_decode())


def _encode_tiled(
    plain: Any, axes: Axes, pixels: Tensor, tile_x: int = 512, tile_y: int = 512, overlap: int = 64
) -> Tensor:
    """ComfyUI's `VAE.encode_tiled_` over a wrapped grid. pixels: (B, C, H, W); sizes in pixels."""
    run = partial(plain.encode_tiled_, tile_x=tile_x, tile_y=tile_y, overlap=overlap)
    factor = plain.spacial_compression_encode()
    return _over_wrapped_grid(run, axes, pixels, math.ceil(overlap / factor) * factor, 1 / factor)


def _decode_tiled_3d(
    plain: Any,
    axes: Axes,
    samples: Tensor,
    tile_t: int = 999,
    tile_x: int = 32,
    tile_y: int = 32,
    overlap: tuple[int, int, int] = (1, 8, 8),
) -> Tensor:
    """ComfyUI's `VAE.decode_tiled_3d` over a wrapped grid. samples: (B, C, T, h, w); sizes in latent pixels."""
    run = partial(plain.decode_tiled_3d, tile_t=tile_t, tile_x=tile_x, tile_y=tile_y, overlap=overlap)
    return _over_wrapped_grid(run, axes, samples, max(overlap[1:]), plain.spacial_compression_decode())


def _encode_tiled_3d(
    plain: Any,
    axes: Axes,
    samples: Tensor,
    tile_t: int = 9999,
    tile_x: int = 512,
    tile_y: int = 512,
    overlap: tuple[int, int, int] = (1, 64, 64),
) -> Tensor:
    """ComfyUI's `VAE.encode_tiled_3d` over a wrapped grid. samples: (B, C, T, H, W); sizes in pixels."""
    run = partial(plain.encode_tiled_3d, tile_t=tile_t, tile_x=tile_x, tile_y=tile_y, overlap=overlap)
    factor = plain.spacial_compression_encode()
    return _over_wrapped_grid(run, axes, samples, math.ceil(max(overlap[1:]) / factor) * factor, 1 / factor)


def _over_wrapped_grid(run: Callable[[Tensor], Tensor], axes: Axes, x: Tensor, overlap: int, scale: float) -> Tensor:
    """Run tiles over `x` (B, C, H, W) continued by `overlap` along `axes`; fold the output, `scale` times as large."""
    check_halves((x.shape[-2], x.shape[-1]), axes, max(1, round(scale)))
    down = min(overlap, x.shape[-2]) if axes.vertical else 0
    across = min(overlap, x.shape[-1]) if axes.horizontal else 0
    return fold(run(extend(x, axes, down, across)), axes, round(down * scale), round(across * scale))
