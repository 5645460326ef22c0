"""The keys and values of all images of a MODEL, stacked by layer: what is kept on the device while sampling.

For n images with T tokens each they take n * T * C * 2 numbers in two rows at every layer of C channels where images
act: keys and values of the images, and of the unconditional ones. They grow neither with the batch nor with the
number of ranges of the schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..patching.residents import Manage, on_device
from .attend import JoinedImages, join_images
from .layers import Layer
from .reference import ActiveReference
from .timed import ActingImage, TimedGroup, groups_on

EPS = 1e-5
"""Added to the mean square of keys, as InstantX's adapter for Flux has it."""


class ImageGroup(NamedTuple):
    """Images under one attention of a layer.

    Attributes:
        joined: their keys and values.
        images: their numbers, which ascend.
        combine: how they are combined, one of `attend.COMBINES`.
        against: whether negative prompts see them, and no others.
        joint: see `formats.Adapter`.
    """

    joined: JoinedImages
    images: tuple[int, ...]
    combine: str
    against: bool = False
    joint: bool = False

    @property
    def kind(self) -> tuple[str, int, int]:
        """How images are combined, tokens of each, and channels: what the division into areas depends on."""
        heads, _, size = self.joined.keys.shape[1:]
        return self.combine, max(self.joined.lengths), heads * size


GroupsByLayer = dict[int, list[ImageGroup]]
"""By number of the layer."""


class ImageStack(nn.Module):
    """Keys and values as parameters of a module, so that a host can move and count them.

    Args:
        references: the images.
        layers: where they act.
        dtype: in which the model computes.
    """

    def __init__(self, references: Sequence[ActiveReference], layers: Sequence[Layer], dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self._groups = {layer.number: list(_groups(references, layer, dtype)) for layer in layers}
        self._groups = {number: groups for number, groups in self._groups.items() if groups}
        for name, tensor in self._named():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        # The parameters alone hold the tensors, else a copy would stay behind when a host moves them.
        self._groups = {number: [_hollow(group) for group in groups] for number, groups in self._groups.items()}

    def get_dtype(self) -> torch.dtype:
        """Return the dtype, as hosts ask a model for it."""
        return self.dtype

    def _named(self) -> list[tuple[str, Tensor]]:
        found = ((f"{n}_{i}", group.joined) for n, groups in self._groups.items() for i, group in enumerate(groups))
        return [(f"{part}_{name}", getattr(joined, part)) for name, joined in found for part in ("keys", "values")]

    def on(self, device: torch.device) -> GroupsByLayer:
        """Return the groups on a device: the tensors themselves where they are there, else copies, without a wait."""
        return {
            number: [self._placed(f"{number}_{i}", group, device) for i, group in enumerate(groups)]
            for number, groups in self._groups.items()
        }

    def _placed(self, name: str, group: ImageGroup, device: torch.device) -> ImageGroup:
        keys, values = (on_device(self.get_parameter(f"{part}_{name}").detach(), device) for part in ("keys", "values"))
        share = None if group.joined.share is None else on_device(group.joined.share, device)
        return group._replace(joined=replace(group.joined, keys=keys, values=values, share=share))

    def forward(self) -> None:
        """Do nothing: layers read the parameters."""


def _hollow(group: ImageGroup) -> ImageGroup:
    empty = torch.empty(0)
    return group._replace(joined=replace(group.joined, keys=empty, values=empty))


def _groups(references: Sequence[ActiveReference], layer: Layer, dtype: torch.dtype) -> list[ImageGroup]:
    """Group the images of one layer by what they see, how they are combined, and their tokens."""
    found = []
    for against in (False, True):
        acting = [i for i, each in enumerate(references) if not each.timed and layer.number in each.weights_at(against)]
        for combine, joint in dict.fromkeys((references[i].combine, references[i].joint) for i in acting):
            together = [i for i in acting if (references[i].combine, references[i].joint) == (combine, joint)]
            pairs = [references[i].keys_values[layer.number] for i in together]
            keys = [normed(pair[0], layer.heads) if joint else pair[0] for pair in pairs]
            weights = [references[i].weights_at(against)[layer.number] for i in together]
            given = [key.to(dtype) for key in keys], [pair[1].to(dtype) for pair in pairs]
            for joined, group in join_images(*given, weights, layer.heads, combine):
                found.append(ImageGroup(joined, tuple(together[i] for i in group), combine, against, joint))
    return found


def normed(keys: Tensor, heads: int) -> Tensor:
    """Return keys (..., C) whose every head has a root mean square of 1, as InstantX's attention takes them."""
    found = keys.to(torch.promote_types(keys.dtype, torch.float32)).unflatten(-1, (heads, -1))
    return F.rms_norm(found, found.shape[-1:], eps=EPS).flatten(-2)


@dataclass(eq=False)
class KeptImages:
    """The stack of a MODEL, made when its first run asks for it.

    Attributes:
        references: the images.
        layers: where they act.
        dtype: in which the model computes.
        manage: puts the stack under the host's memory management.
    """

    references: Sequence[ActiveReference]
    layers: Sequence[Layer]
    dtype: torch.dtype
    manage: Manage | None = None

    @cached_property
    def stack(self) -> ImageStack:
        """The stack."""
        return ImageStack(self.references, self.layers, self.dtype)

    @property
    def less_memory(self) -> str:
        """What would take less memory; "" where nothing would.

        Fused attention to all images at once needs no probabilities, but where masks weigh them.
        """
        added = [each for each in self.references if each.combine == "sum" and each.mask is None and each.keys_values]
        tokens = sum(next(iter(each.keys_values.values()))[0].shape[1] for each in added)
        head = min((layer.channels // layer.heads for layer in self.layers), default=0)
        if len(added) < 2 or tokens <= head:
            return ""
        return f"choose concat in Apply Image Prompts, which takes less than sum with {len(added)} images"

    @cached_property
    def models(self) -> list[Any]:
        """The host's MODELs around the stack and around timed adapters, if it manages memory."""
        if self.manage is None:
            return []
        timed = {id(each.timed.adapter): each.timed.adapter for each in self.references if each.timed}
        found = [model for adapter in timed.values() for model in adapter.models(self.manage)]
        managed = self.manage(self.stack) if any(not each.timed for each in self.references) else None
        return found if managed is None else [managed, *found]

    def timed_on(self, device: torch.device) -> list[TimedGroup]:
        """Return the images whose keys and values change with the noise level, on a device."""
        every = enumerate(self.references)
        images = [ActingImage(i, each.timed, each.combine, each.weights) for i, each in every if each.timed]
        return groups_on(images, device)
