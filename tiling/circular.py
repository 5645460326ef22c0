"""Circular convolutions for the duration of a `with` block.

A padded convolution reads zeros beyond the border of its input. Read the opposite border instead and the whole network
commutes with rolling the image, so what it draws repeats without a seam.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .axes import Axes
from .swap import swapped

Pads = tuple[int, int, int, int]

END_PADDING_DOWNSAMPLERS = frozenset({"Downsample", "Downsample2D"})
"""Classes whose forward pads one zero column on the right and one zero row below an unpadded convolution."""

SELF_PADDING_CONVOLUTIONS = frozenset({"WanCausalConv3d", "QwenImageCausalConv3d"})
"""Convolutions that are built with a padding, but apply it themselves (diffusers' video models)."""

RING = 512 * 512
"""From this many px on, on a CPU, recomputing the outermost ring is faster than padding: at 512 x 512 padding takes 8 %
more time than zeros with 128 channels and 35 % with 32, the ring 2 %; at 256 x 256 padding is faster.
(`benchmarks/circular_padding.py`)"""

Conv = nn.Conv2d | nn.Conv3d
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_PADDINGS = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ConstantPad3d, nn.ReplicationPad3d)


class NotPeriodicError(ValueError):
    """A network has a layer that cannot be made periodic."""


@contextmanager
def circular(network: nn.Module, axes: Axes) -> Iterator[None]:
    """Make every padded convolution of `network` circular along `axes`; on exit, restore it.

    The hook is `_conv_forward` as an instance attribute, so weights that a host casts, dequantises or adds a LoRA to
    just before the call still arrive. Blocks may nest: the innermost one applies.

    Args:
        network: its convolutions map (B, C, [T,] H, W) to (B, C', [T',] H', W').
        axes: along which axes to wrap.

    Raises:
        NotPeriodicError: a layer reads beyond the border in an unknown way; nothing is changed then.
    """
    borders = list(wrapping_convolutions(network))
    forwards = [(border.conv, partial(_forward, border, axes)) for border in borders]
    paddings = [(border.conv, border.remaining(axes)) for border in borders]
    with swapped("_conv_forward", forwards), swapped("padding", paddings):
        yield


class Border(NamedTuple):
    """What a convolution reads beyond its input's border.

    Attributes:
        conv: the convolution.
        pads: (left, right, top, bottom) in px.
        there: whether its input has them already, rather than the convolution adding them."""

    conv: Conv
    pads: Pads
    there: bool

    def remaining(self, axes: Axes) -> tuple[int, ...]:
        """Return the convolution's own padding, 0 along axes that wrap."""
        left, _, top, _ = (0, 0, 0, 0) if self.there else self.pads
        own = self.conv.padding
        time = self.conv._reversed_padding_repeated_twice[4::2] if isinstance(own, str) else own[:-2]
        return (*time, 0 if axes.vertical else top, 0 if axes.horizontal else left)

    def uneven(self, axes: Axes) -> tuple[int, ...]:
        """`F.pad` of axes that do not wrap, where padding "same" is larger at the end, which `padding` cannot say."""
        if self.there:
            return ()
        pads = self.conv._reversed_padding_repeated_twice
        wraps = (axes.horizontal, axes.vertical, False)
        more = (0 if along else end - start for start, end, along in zip(pads[::2], pads[1::2], wraps, strict=False))
        return tuple(pad for end in more for pad in (0, end))


def wrapping_convolutions(network: nn.Module) -> Iterator[Border]:
    """Yield each convolution of `network` that reads beyond its input's border.

    Raises:
        NotPeriodicError: as `circular`.
    """
    for parent, layer in _layers(network):
        if not _reads_beyond_border(layer) or _pads_for_next(parent, layer):
            continue
        border = _border(parent, layer) if isinstance(layer, Conv) and layer.padding_mode == "zeros" else None
        if border is None:
            raise NotPeriodicError(f"{type(parent).__name__} holds {layer}, which has no periodic form here.")
        yield border


def _own_pads(conv: Conv) -> Pads:
    """Return the convolution's spatial padding as it was built: `padding` itself may be swapped."""
    left, right, top, bottom = conv._reversed_padding_repeated_twice[:4]
    return left, right, top, bottom


def _border(parent: nn.Module, conv: Conv) -> Border | None:
    """Return the zeros around a convolution's input, its own or those of the layer before it; None if unknown."""
    if type(conv).__name__ in SELF_PADDING_CONVOLUTIONS:
        return Border(conv, _own_pads(conv), there=True)
    if any(_own_pads(conv)):
        return Border(conv, _own_pads(conv), there=False)
    if END_PADDING_DOWNSAMPLERS.intersection(kind.__name__ for kind in type(parent).__mro__):
        return Border(conv, (0, 1, 0, 1), there=True)
    before = _neighbour(parent, conv, -1)
    if isinstance(before, nn.ZeroPad2d):
        left, right, top, bottom = before.padding
        return Border(conv, (left, right, top, bottom), there=True)
    return None


def _pads_for_next(parent: nn.Module, layer: nn.Module) -> bool:
    """Return whether `layer` pads for the unpadded convolution after it, which wraps instead."""
    after = _neighbour(parent, layer, 1)
    return isinstance(layer, nn.ZeroPad2d) and isinstance(after, nn.Conv2d) and not any(_own_pads(after))


def _neighbour(parent: nn.Module, layer: nn.Module, distance: int) -> nn.Module | None:
    if not isinstance(parent, nn.Sequential):
        return None
    layers = list(parent)
    at = layers.index(layer) + distance
    return layers[at] if 0 <= at < len(layers) else None


def _forward(border: Border, axes: Axes, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Call the class's own `_conv_forward` on `x` (B, C, [T,] H, W), wrapped; weight and bias are passed on."""
    forward: Any = type(border.conv)._conv_forward
    if _ring_pays(border, axes, x) and forward is nn.Conv2d._conv_forward:
        return _ring(border.conv, x, *args, **kwargs)
    left, right, top, bottom = border.pads
    across = (left, right) if axes.horizontal else (0, 0)
    down = (top, bottom) if axes.vertical else (0, 0)
    if border.there:
        height, width = x.shape[-2:]
        x = x[..., down[0] : height - down[1], across[0] : width - across[1]]
    x, uneven = wrap(x, axes, across, down), border.uneven(axes)
    return forward(border.conv, F.pad(x, uneven) if any(uneven) else x, *args, **kwargs)


def _ring_pays(border: Border, axes: Axes, x: Tensor) -> bool:
    """Return whether this is a plain 3x3 convolution on a CPU of a large image that repeats along both axes."""
    conv, large = border.conv, x.shape[-2] * x.shape[-1] >= RING and min(x.shape[-2:]) > 1
    plain = (conv.kernel_size, conv.stride, conv.dilation, border.pads) == ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    return large and plain and not border.there and axes == (True, True, False, False) and x.device.type == "cpu"


def _ring(conv: Conv, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with zeros, then recompute the outermost lines from four lines around the border."""
    made = F.conv2d(x, weight, bias, padding=1, groups=conv.groups)
    rows = _circular(torch.cat((x[..., -2:, :], x[..., :2, :]), dim=-2), (1, 1, 0, 0))
    columns = _circular(torch.cat((x[..., -2:], x[..., :2]), dim=-1), (0, 0, 1, 1))
    for lines, dim in ((rows, -2), (columns, -1)):
        last, first = F.conv2d(lines, weight, bias, groups=conv.groups).unbind(dim)
        made.select(dim, -1).copy_(last)
        made.select(dim, 0).copy_(first)
    return made


def wrap(x: Tensor, axes: Axes, across: tuple[int, int], down: tuple[int, int]) -> Tensor:
    """Pad `x` (..., H, W) by `across` (left, right) and `down` (top, bottom) px of its repeats.

    Raises:
        NotPeriodicError: a side that repeats are shifted along by half is odd.
    """
    if axes.half_drop:
        return wrap(x.mT, axes._replace(half_drop=False, brick=True), down, across).mT
    if axes.brick:
        if x.shape[-1] % 2:
            raise NotPeriodicError(f"A side of {x.shape[-1]} cannot be shifted by half; use a size that is even there.")
        above, below = (x.roll(x.shape[-1] // 2, -1)[..., rows, :] for rows in (slice(-down[0], None), slice(down[1])))
        x, down = torch.cat((above[..., : down[0], :], x, below), dim=-2), (0, 0)
    return _circular(x, (*across, *down))


def _circular(x: Tensor, pads: tuple[int, ...]) -> Tensor:
    """Pad x (B, C, [T,] H, W) by `F.pad`, which needs the pads of all axes but the first two."""
    if not any(pads):
        return x
    return F.pad(x, (*pads, *(0, 0) * (x.ndim - 4)), mode="circular")


def _layers(network: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Yield (parent, layer) once for each layer, in half the time of `named_modules`; it runs at every step."""
    yield network, network
    seen = {id(network)}
    waiting = [network]
    while waiting:
        parent = waiting.pop()
        for layer in parent._modules.values():
            if layer is not None and id(layer) not in seen:
                seen.add(id(layer))
                waiting.append(layer)
                yield parent, layer


def _reads_beyond_border(layer: nn.Module) -> bool:
    """Return whether the outputs of `layer` near the border depend on where the border is."""
    if isinstance(layer, _PADDINGS):
        return True
    if not isinstance(layer, _CONVOLUTIONS):
        return False
    padded = any(layer._reversed_padding_repeated_twice[:4])
    return padded or any(k > s for k, s in zip(layer.kernel_size[-2:], layer.stride[-2:], strict=True))
