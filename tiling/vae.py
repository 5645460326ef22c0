"""Seamless VAEs: they encode and decode on the torus, and share the weights of the plain VAE."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from ..patching.vaes import plain_vae, rewired, tiles_itself
from .axes import Axes, edges_that_meet
from .circular import NotPeriodicError, circular, wrapping_convolutions
from .wrap import check_halves, extend, fold


class CircularAutoencoder:
    """Proxy of an autoencoder that runs `encode` and `decode` with circular convolutions, and delegates the rest.

    Args:
        network: the autoencoder.
        axes: along which axes images repeat.
        pixel: image pixels per latent.
    """

    def __init__(self, network: Any, axes: Axes, pixel: int) -> None:
        self.network = network
        self.axes = axes
        self.pixel = pixel

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """Encode by the autoencoder, with images and latents taken as periodic."""
        with circular(self.network, self.axes):
            return self.network.encode(*args, **kwargs)

    def decode(self, latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Decode latents (B, C, [T,] h, w) by the autoencoder, with images and latents taken as periodic."""
        check_halves((latents.shape[-2], latents.shape[-1]), self.axes, self.pixel)
        with circular(self.network, self.axes):
            return self.network.decode(latents, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # Asked for while a copy is made: `network` before it has one, and what says how a class is copied.
        if name == "network" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(self.network, name)


def seamless_vae(vae: Any, axes: Axes) -> Any:
    """Return a VAE like `vae` whose images repeat along `axes`; `vae` itself is not changed.

    Tiled encoding and decoding, asked for or as the host's fallback when memory runs out, keep plain convolutions and
    wrap the grid of tiles instead: wrapping each tile would give it the wrong neighbours.

    Args:
        vae: a host's VAE object (ComfyUI's `comfy.sd.VAE`); a seamless one is replaced, not wrapped again.
        axes: along which axes images repeat; with none, the plain VAE is returned.

    Raises:
        ValueError: there is no autoencoder, or it has a layer without a periodic form or tiles of its own
            (`NotPeriodicError`).
    """
    plain = plain_vae(vae)
    if plain.first_stage_model is None:
        raise ValueError("The VAE is empty, as its checkpoint holds none; load one with a VAE loader.")
    if not any(axes):
        return plain
    if tiles_itself(plain):
        raise NotPeriodicError("The VAE divides images into tiles of its own, which do not wrap; use another VAE.")
    list(wrapping_convolutions(plain.first_stage_model))
    autoencoder = CircularAutoencoder(plain.first_stage_model, axes, plain.spacial_compression_decode())
    return rewired(plain, autoencoder, partial(check_crop, axes), partial(over_wrapped_grid, axes))


def check_crop(axes: Axes, height: int, width: int, factor: int) -> None:
    """Raise ValueError when cropping an image to whole latents of `factor` px would break its repeat."""
    units = axes.units(factor)
    if (axes.horizontal and width % units[1]) or (axes.vertical and height % units[0]):
        raise ValueError(
            f"The image is {width} x {height} px, but one whose {edges_that_meet(axes)} needs sides that are multiples "
            f"of {max(units)} px; scale it first."
        )


def over_wrapped_grid(axes: Axes, run: Callable[[Tensor], Tensor], x: Tensor, overlap: int, scale: float) -> Tensor:
    """Run tiles over `x` (B, C, H, W) continued by `overlap` along `axes`; fold the output, `scale` times as large."""
    check_halves((x.shape[-2], x.shape[-1]), axes, max(1, round(scale)))
    down = min(overlap, x.shape[-2]) if axes.vertical else 0
    across = min(overlap, x.shape[-1]) if axes.horizontal else 0
    return fold(run(extend(x, axes, down, across)), axes, round(down * scale), round(across * scale))
