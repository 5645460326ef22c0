"""Convolutions that wrap around the picture, for as long as a `with` block lasts.

A padded convolution reads zeros beyond the border of its input. Read the opposite border instead and the whole network
commutes with rolling the picture, so what it draws repeats without a seam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from .axes import Axes
from .swap import swapped

ConvForward = Callable[[nn.Conv2d, Axes, Tensor, Tensor, "Tensor | None"], Tensor]

# Classes whose forward adds one zero column on the right and one zero row below, then calls an unpadded convolution.
END_PADDING_DOWNSAMPLERS = frozenset({"Downsample", "Downsample2D"})

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_PADDINGS = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ConstantPad3d, nn.ReplicationPad3d)


class NotPeriodicError(ValueError):
    """A network has a layer that nothing here can make periodic."""


@contextmanager
def circular(network: nn.Module, axes: Axes) -> Iterator[None]:
    """Let every padded convolution of `network` wrap around along `axes`; on exit the network is what it was.

    The hook is `_conv_forward` as an instance attribute, so weights that a host casts, dequantises or adds a LoRA to
    just before the call still arrive. Blocks may nest: the inner one rules while it lasts.

    Args:
        network: module whose convolutions are (B, C, H, W) in, (B, C', H', W') out.
        axes: along which axes to wrap.

    Raises:
        NotPeriodicError: a layer reads beyond the border in a way that is not known here; nothing is changed then.
    """
    convolutions = list(wrapping_convolutions(network))
    with swapped("_conv_forward", [(conv, partial(forward, conv, axes)) for conv, forward in convolutions]):
        yield


def wrapping_convolutions(network: nn.Module) -> Iterator[tuple[nn.Conv2d, ConvForward]]:
    """Yield each convolution that reads beyond its input's border, with the forward that makes it wrap.

    Raises:
        NotPeriodicError: as `circular`.
    """
    for parent, layer in _layers(network):
        if not _reads_beyond_border(layer):
            continue
        if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            if any(layer.padding):
                yield layer, wrap_padded
                continue
            if END_PADDING_DOWNSAMPLERS.intersection(kind.__name__ for kind in type(parent).__mro__):
                yield layer, wrap_end_padded
                continue
        raise NotPeriodicError(
            f"{type(parent).__name__} holds {layer}, which has no periodic form here yet; "
            "use a model of the Stable Diffusion 1.5 or SDXL kind."
        )


def wrap_padded(conv: nn.Conv2d, axes: Axes, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv` applied to `x` (B, C, H, W), its padding read from the opposite border along `axes`, else zeros."""
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    across = (left, right) if axes.horizontal else (0, 0)
    down = (top, bottom) if axes.vertical else (0, 0)
    wrapped = F.pad(x, (*across, *down), mode="circular")
    zeros = (0 if axes.vertical else top, 0 if axes.horizontal else left)
    return F.conv2d(wrapped, weight, bias, conv.stride, zeros, conv.dilation, conv.groups)


def wrap_end_padded(conv: nn.Conv2d, axes: Axes, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv` applied to `x` (B, C, H + 1, W + 1), whose last column and row are zeros that the caller has just added.

    They are overwritten in place by the first column and row: `x` is the caller's own fresh copy.
    """
    if axes.horizontal:
        x[..., -1] = x[..., 0]
    if axes.vertical:
        x[..., -1, :] = x[..., 0, :]
    return F.conv2d(x, weight, bias, conv.stride, 0, conv.dilation, conv.groups)


def _layers(network: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """(parent, layer), once for each layer; half the time of `named_modules`, which is spent at every step."""
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
    """Whether the outputs of `layer` next to the border depend on where the border is."""
    if isinstance(layer, _PADDINGS):
        return True
    if not isinstance(layer, _CONVOLUTIONS):
        return False
    padded = layer.padding == "same" or (layer.padding != "valid" and any(layer.padding[-2:]))
    return padded or any(k > s for k, s in zip(layer.kernel_size[-2:], layer.stride[-2:], strict=True))
