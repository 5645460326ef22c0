"""Images as keys and values of every cross-attention layer, precomputed: they depend on no step, seed or prompt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..patching.schedule import ScheduleRange
from .formats import Adapter
from .layers import Layer, layers_of
from .timed import TimedImage

KeysValues = dict[int, tuple[Tensor, Tensor]]
"""By number of the layer: keys and values, both (2, T, channels); row 0 is the image, row 1 the unconditional one."""


@dataclass(frozen=True, eq=False)
class Reference:
    """One image, encoded for the models of one adapter.

    Attributes:
        keys_values: of its layers, see `KeysValues`.
        width: of the tokens that were projected.
        layer_count: cross-attention layers of the adapter.
        fingerprint: of the adapter's weights.
        name: of the adapter, for messages.
        joint: see `formats.Adapter`.
        timed: the image in place of keys and values, where they change with the noise level.
    """

    keys_values: KeysValues
    width: int
    layer_count: int
    fingerprint: str
    name: str
    joint: bool = False
    timed: TimedImage | None = None


@dataclass(frozen=True, eq=False)
class ActiveReference:
    """One image at work in a model.

    Attributes:
        keys_values: see `KeysValues`.
        weights: by number of the layer; layers without one do not see the image.
        combine: how it is combined with other images, one of `attend.COMBINES`.
        schedule: the range of the schedule in which it acts.
        mask: where it acts (H, W) in 0..1; None for everywhere.
        against: weights of layers where negative prompts see the image, so that guidance pushes away from it.
        joint: see `formats.Adapter`.
        timed: see `Reference`.
    """

    keys_values: KeysValues
    weights: dict[int, float]
    combine: str = "sum"
    schedule: ScheduleRange = ScheduleRange()
    mask: Tensor | None = None
    against: dict[int, float] = field(default_factory=dict)
    joint: bool = False
    timed: TimedImage | None = None

    def weights_at(self, against: bool) -> dict[int, float]:
        """Return the weights of layers where prompts see the image as usual, or where negative ones alone do."""
        return self.against if against else self.weights

    def acts_at(self, layer: int) -> bool:
        """Return whether the image acts at a layer."""
        return layer in self.weights or layer in self.against


class TextProjection:
    """The layer by which Kolors projects text, and what FaceID makes of a face, to the width of its cross-attention.

    Args:
        layer: `encoder_hid_proj` of its network.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer

    @property
    def widths(self) -> tuple[int, int]:
        """Of what it reads and of what it gives."""
        return self.layer.weight.shape[1], self.layer.weight.shape[0]

    def __call__(self, tokens: Tensor) -> Tensor:
        """Project tokens (..., D)."""
        bias = None if self.layer.bias is None else self.layer.bias.to(tokens)
        return F.linear(tokens, self.layer.weight.to(tokens), bias)

    def __repr__(self) -> str:
        """Tell models apart by some of the weights."""
        return f"TextProjection({self.layer.weight[0, :8].tolist()})"


def find_projection(network: nn.Module) -> TextProjection | None:
    """Return the projection of a network's text, None where it has none."""
    found = (getattr(module, "encoder_hid_proj", None) for module in network.modules())
    layer = next((each for each in found if isinstance(each, nn.Linear)), None)
    return None if layer is None else TextProjection(layer)


class Place(NamedTuple):
    """What of a model keys and values depend on.

    Attributes:
        device: where they are computed.
        dtype: in which the model computes, and in which they are kept.
        projection: of its text, None where it has none.
    """

    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    projection: TextProjection | None = None

    @property
    def working(self) -> torch.dtype:
        """The dtype for computing: a CPU is slow in half precision."""
        return torch.promote_types(self.dtype, torch.float32) if self.device.type == "cpu" else self.dtype


def precompute(tokens: Tensor, adapter: Adapter, numbers: Iterable[int], place: Place = Place()) -> list[KeysValues]:  # noqa: B008
    """Compute the keys and values of images, a layer of the adapter on the device at a time.

    Args:
        tokens: (n, 2, T, D) of n images: theirs, and the unconditional ones.
        adapter: projects them.
        numbers: of the layers that are needed.
        place: where they are computed.

    Returns:
        Of each image, on the CPU.

    Raises:
        ValueError: the tokens are not finite.
    """
    check_finite(tokens)
    moved = tokens.to(place.device, place.working)
    moved = place.projection(moved) if adapter.made and place.projection else moved
    found: list[KeysValues] = [{} for _ in tokens]
    for number in numbers:
        keys, values = (_project(moved, adapter, number, part).to("cpu", place.dtype) for part in (0, 1))
        for each, k, v in zip(found, keys, values, strict=True):
            each[number] = (k.clone(), v.clone())
    return found


def check_finite(seen: Tensor) -> None:
    """Raise ValueError when tokens, or what an encoder sees, are not finite."""
    if not torch.isfinite(seen).all():
        raise ValueError(
            "The image prompt has values that are not finite; check the image and the precision of the image encoder."
        )


def _project(tokens: Tensor, adapter: Adapter, number: int, part: int) -> Tensor:
    bias = adapter.biases[number][part].to(tokens) if adapter.biases else None
    return F.linear(tokens, adapter.layers[number][part].to(tokens), bias)


def check_fit(name: str, width: int, count: int, channels: dict[int, int], layers: list[Layer]) -> None:
    """Raise ValueError when an adapter, or a reference made with it, is for another kind of model.

    Args:
        name: of the adapter.
        width: of its tokens.
        count: of its cross-attention layers.
        channels: of some of them, by number.
        layers: of the model.
    """
    layers = layers_of(count, layers)
    fits = (
        count == len(layers)
        and width == layers[0].width
        and all(channels[layer.number] == layer.channels for layer in layers if layer.number in channels)
    )
    if not fits:
        raise ValueError(
            f"{name} is for a model with {count} cross-attention layers and text of width {width} "
            f"({family(count, width)}), but this model has {len(layers)} and {layers[0].width} "
            f"({family(len(layers), layers[0].width, layers[0].model)}); use an IP-Adapter for this model."
        )


def family(count: int, width: int, other: str = "of another kind") -> str:
    """Return the usual name of models with so many cross-attention layers and text of this width, `other` if none."""
    return {
        (16, 768): "SD 1.5",
        (16, 1024): "SD 2",
        (70, 2048): "SDXL",
        (7, 128): "texture-sd",
        (19, 4096): "Flux",
        (57, 4096): "Flux",
        (38, 2432): "SD 3.5 large",
        (24, 1536): "SD 3 or 3.5 medium",
    }.get((count, width), other)
