"""Images as keys and values of every cross-attention, computed once: they depend on no step, seed or prompt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .formats import Adapter
from .layers import Layer


@dataclass(frozen=True, eq=False)
class Reference:
    """One image, precomputed.

    Args:
        pairs: by layer number: keys and values, both (2, T, channels); row 0 is the image, row 1 the unconditional one.
        width: of the tokens they came from.
        layers: how many cross-attention layers the adapter has.
        fingerprint: of the adapter.
        name: of the adapter, for messages.
    """

    pairs: dict[int, tuple[Tensor, Tensor]]
    width: int
    layers: int
    fingerprint: str
    name: str


def precompute(tokens: Tensor, unconditional: Tensor, adapter: Adapter, numbers: Iterable[int]) -> Reference:
    """Compute the keys and values of one image in float32.

    Args:
        tokens: (T, D).
        unconditional: (T, D).
        adapter: whose weights project them.
        numbers: the layers that are needed.

    Raises:
        ValueError: the tokens are not finite.
    """
    both = torch.stack([tokens, unconditional]).float()
    if not torch.isfinite(both).all():
        raise ValueError(
            "The image prompt holds values that are no numbers; look at the image and at the encoder's precision."
        )
    pairs = {n: (_project(both, adapter, n, 0), _project(both, adapter, n, 1)) for n in numbers}
    return Reference(pairs, adapter.width, len(adapter.layers), adapter.fingerprint, adapter.name)


def _project(tokens: Tensor, adapter: Adapter, number: int, part: int) -> Tensor:
    bias = adapter.biases[number][part].to(tokens) if adapter.biases else None
    return F.linear(tokens, adapter.layers[number][part].to(tokens), bias)


def check_fit(name: str, width: int, count: int, channels: dict[int, int], layers: list[Layer]) -> None:
    """Raise ValueError when an adapter, or an image precomputed by it, is not for a model.

    Args:
        name: of the adapter.
        width: of its tokens.
        count: of its cross-attentions.
        channels: of some of them, by number.
        layers: the model's.
    """
    fits = (
        count == len(layers)
        and width == layers[0].width
        and all(channels[s.number] == s.channels for s in layers if s.number in channels)
    )
    if not fits:
        raise ValueError(
            f"{name} is for a model with {count} cross-attentions and text of width {width} ({family(count, width)}), "
            f"but this model has {len(layers)} and {layers[0].width} ({family(len(layers), layers[0].width)}); use an "
            "IP-Adapter for this model."
        )


def family(count: int, width: int) -> str:
    """The usual name of models with so many cross-attentions and text of this width."""
    return {
        (16, 768): "SD 1.5",
        (16, 1024): "SD 2",
        (70, 2048): "SDXL",
        (7, 128): "texture-sd",
        (19, 4096): "Flux",
    }.get((count, width), "of another kind")
