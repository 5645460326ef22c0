"""Seamless images from plain diffusers: modules of a pipeline made periodic for as long as a `with` block lasts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..patching.networks import Network
from .axes import TILINGS, Axes
from .circular import NotPeriodicError, circular, wrapping_convolutions
from .hooks import check_size
from .swap import swapped
from .torus import Size, rotary_embedders, spatial_axes, torus
from .vae import check_crop
from .wrap import check_halves

LATENT_PIXELS = 8
"""Image pixels along a latent of the UNets that diffusers has; a UNet itself does not say."""


@contextmanager
def seamless(*modules: nn.Module, axes: str | Axes = "both") -> Iterator[None]:
    """Make diffusers modules periodic inside a `with` block, so that images repeat without a seam.

    UNets, VAEs and control networks read the opposite border in every padded convolution. Transformers such as Flux
    round their rotary positions to harmonics of the image that is drawn, whatever its size. The weights are not
    touched; on exit, errors included, every module is what it was before. Blocks may nest: the innermost one applies.

    Args:
        modules: the denoiser and the VAE of a pipeline, and its control networks if it has any.
        axes: "both", "horizontal" (left meets right), "vertical" (top meets bottom), "half_drop" (the repeat to the
            right is shifted down by half the height), "brick" (the repeat below is shifted right by half the width),
            or `Axes`.

    Raises:
        NotPeriodicError: a module has a layer or positions without a periodic form.
        ValueError: the tiling is unknown; inside the block, the size cannot repeat with this module.
        TypeError: something is not a module, such as a whole pipeline.

    Examples:
        >>> import torch, tessera
        >>> from diffusers import AutoencoderKL
        >>> vae = AutoencoderKL(block_out_channels=(32,), norm_num_groups=8)
        >>> latents = torch.randn(1, 4, 8, 8)
        >>> with torch.no_grad(), tessera.tiling.seamless(vae):
        ...     image = vae.decode(latents).sample
        ...     rolled = vae.decode(latents.roll(3, -1)).sample
        >>> bool(torch.allclose(rolled, image.roll(3, -1), atol=1e-4))
        True

        With a pipeline: `with tessera.tiling.seamless(pipe.unet, pipe.vae): images = pipe("moss").images`.
    """
    chosen = _axes(axes)
    for module in modules:
        _check_module(module)
    with ExitStack() as stack:
        if any(chosen):
            for module in modules:
                stack.enter_context(_periodic(module, chosen))
        yield


def _axes(axes: str | Axes) -> Axes:
    if isinstance(axes, Axes):
        return axes
    if axes not in TILINGS:
        raise ValueError(f"axes is {axes!r}, expected one of: {', '.join(TILINGS)}.")
    return TILINGS[axes]


def _check_module(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"seamless takes modules of torch, found {type(module).__name__}; pass the parts of a pipeline, such as "
            "pipe.unet or pipe.transformer, and pipe.vae."
        )
    if getattr(module, "use_tiling", False):
        raise ValueError(
            f"{type(module).__name__} works in tiles, each of which would repeat by itself; call its disable_tiling()."
        )


@contextmanager
def _periodic(module: nn.Module, axes: Axes) -> Iterator[None]:
    """One module on the torus, in the way that suits it."""
    rotary = any(rotary_embedders(module))
    if not rotary:
        _check_positions(module)
    with ExitStack() as stack:
        stack.enter_context(circular(module, axes))
        for checked, check in _size_checks(module, axes):
            stack.callback(checked.register_forward_pre_hook(check, with_kwargs=True).remove)
        if rotary:
            forward = partial(_on_torus, module, axes, module.forward)
            stack.enter_context(swapped("forward", [(module, forward)]))
        yield


def _on_torus(module: nn.Module, axes: Axes, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a transformer whose positions repeat with the images that this call has."""
    given = inspect.signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments
    ids = given.get("img_ids")
    if not isinstance(ids, Tensor):
        raise NotPeriodicError(f"{type(module).__name__} was called without img_ids, which say how large an image is.")
    with torus(module, axes, image_sizes(ids.reshape(-1, *ids.shape[-2:])[0])):
        return forward(*args, **kwargs)


def image_sizes(ids: Tensor) -> list[Size]:
    """Return (height, width) in tokens of each image of a sequence, the one that is drawn first.

    Args:
        ids: positions (N, A) of the images' tokens, of which `spatial_axes` are row and column and the others tell
            images apart.

    Examples:
        >>> import torch
        >>> from tessera.tiling.pipeline import image_sizes
        >>> image_sizes(torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(6.0)))
        [(4, 6)]
    """
    spatial = spatial_axes(ids.shape[1])
    others = [axis for axis in range(ids.shape[1]) if axis not in spatial]
    images: dict[tuple[float, ...], tuple[set[float], set[float]]] = {}
    for token in ids.tolist():
        lines = images.setdefault(tuple(token[axis] for axis in others), (set(), set()))
        for line, axis in zip(lines, spatial, strict=True):
            line.add(token[axis])
    return [(len(rows), len(columns)) for rows, columns in images.values()]


def _check_positions(module: nn.Module) -> None:
    """Raise NotPeriodicError where a module has positions that nothing here makes periodic, or nothing that wraps."""
    tables = (name for name, _ in chain(module.named_buffers(), module.named_parameters()))
    unknown = next((name for name in tables if "pos_embed" in name.rsplit(".", 1)[-1]), None)
    unknown = unknown or next((type(m).__name__ for m in module.modules() if _embeds_positions(m)), None)
    if unknown:
        raise NotPeriodicError(f"{type(module).__name__} has positions ({unknown}) that have no periodic form here.")
    if not any(True for _ in wrapping_convolutions(module)):
        raise NotPeriodicError(f"{type(module).__name__} has no convolution or position that could be made periodic.")


def _embeds_positions(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    return any(part in name for part in ("rotary", "rope", "posembed"))


Check = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


def _size_checks(module: Any, axes: Axes) -> Iterator[tuple[nn.Module, Check]]:
    """Yield modules, with the check of what goes into them: a UNet, or the two halves of a VAE."""
    if Network(module, 0).unet is module:
        unit = Network(module, 0).downsampling
        yield module, _checking(lambda size: check_size(size, axes, unit, LATENT_PIXELS))
    if isinstance(getattr(module, "encoder", None), nn.Module) and isinstance(module.decoder, nn.Module):
        factor = 2 ** (len(module.config.block_out_channels) - 1) if "block_out_channels" in module.config else 1
        yield module.encoder, _checking(lambda size: check_crop(axes, *size, factor))
        yield module.decoder, _checking(lambda size: check_halves(size, axes, factor))


def _checking(check: Callable[[Size], None]) -> Check:
    """Return a forward pre-hook that checks the (height, width) of the first tensor."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
        if first is not None and first.ndim >= 4:
            check((first.shape[-2], first.shape[-1]))

    return hook
