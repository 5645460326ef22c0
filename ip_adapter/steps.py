"""One step of a run: which image prompts act, with which keys, values and masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .areas import Part, split
from .attend import JoinedImages, add_images, join_images, select
from .layers import Layer
from .maps import Record
from .masks import pool
from .reference import ActiveReference

STEP = "tessera_image_prompts_step"


class ImageGroup(NamedTuple):
    """Images under one attention.

    Attributes:
        joined: their keys and values.
        mask: their masks (n, L); (n, P) where they act on P pixels only. None without masks.
        images: their numbers.
        pixels: numbers of these P pixels; None for all.
    """

    joined: JoinedImages
    mask: Tensor | None
    images: list[int]
    pixels: Tensor | None = None


@dataclass(eq=False)
class RunMemory:
    """What is kept from the first step of a run to its last.

    Attributes:
        size: of the latents (height, width).
        names: uuid of a conditioning -> its name in the guider.
        masks: of images, by number, cropped as the image was.
        groups: images on the device, by layer, images that act, and rows.
        areas: areas of the image, with the masks (n, P) there; None without masks.
    """

    size: tuple[int, int] | None = None
    names: dict[Any, str] = field(default_factory=dict)
    masks: dict[int, Tensor] = field(default_factory=dict)
    groups: dict[Any, list[ImageGroup]] = field(default_factory=dict)
    areas: dict[Any, list[tuple[Part, Tensor]] | None] = field(default_factory=dict)

    def mask_of(self, number: int, reference: ActiveReference) -> Tensor | None:
        """Return where the image of a number acts (H, W)."""
        return self.masks.get(number, reference.mask)


@dataclass(frozen=True, eq=False)
class Step:
    """What the layers need to know in one call of the model.

    Attributes:
        memory: of its run.
        references: all images.
        active: the numbers of those that act.
        roles: for each conditioning in the batch 0 (sees the images) or 1 (sees the unconditional tokens).
        size: of the latents in this call (height, width).
        queries: of Flux's double blocks that are running, by number.
    """

    memory: RunMemory
    references: tuple[ActiveReference, ...]
    active: tuple[int, ...]
    roles: tuple[int, ...]
    size: tuple[int, int]
    queries: dict[int, Tensor] = field(default_factory=dict)

    def add(
        self, out: Tensor, q: Tensor, layer: Layer, heads: int, grid: tuple[int, int], record: Record | None = None
    ) -> Tensor:
        """Add all images to the output of a layer, in place.

        Args:
            out: the layer's output (B, L, C).
            q: its queries (B, L, C).
            layer: the layer.
            heads: of its attention.
            grid: (height, width) of the L pixels.
            record: where to record how strongly each image acts.
        """
        groups = self.groups(layer, q, heads, grid, divided=record is None)
        if record is not None:
            for joined, mask, images, _ in groups:
                record.add(out, q, joined, mask, images, grid)
        for joined, mask, _, pixels in groups:
            add_images(out, q, joined, mask, pixels)
        return out

    def groups(
        self, layer: Layer, q: Tensor, heads: int, grid: tuple[int, int], divided: bool = True
    ) -> list[ImageGroup]:
        """Return the images at a layer, from the run's memory; `divided` into areas where that is cheaper."""
        key = (layer.number, self.active, self.roles, q.shape[0], grid, q.dtype, q.device, divided)
        if key not in self.memory.groups:
            acting = {n: self.references[n] for n in self.active if layer.number in self.references[n].weights}
            self.memory.groups[key] = [
                placed
                for combine in dict.fromkeys(each.combine for each in acting.values())
                for group in _load(
                    {n: r for n, r in acting.items() if r.combine == combine}, layer, self.roles, q, heads
                )
                for placed in self._placed(group, combine, grid, q, divided)
            ]
        return self.memory.groups[key]

    def _placed(
        self, group: ImageGroup, combine: str, grid: tuple[int, int], q: Tensor, divided: bool
    ) -> list[ImageGroup]:
        """Return the group with masks, one for each area."""
        tokens = group.joined.keys.shape[2] // len(group.images)
        key = (grid, tuple(group.images), combine, tokens, q.shape[-1], divided)
        if key not in self.memory.areas:
            mask = pool([self.memory.mask_of(image, self.references[image]) for image in group.images], grid)
            self.memory.areas[key] = None if mask is None else _areas(mask, combine, tokens, q, divided)
        areas = self.memory.areas[key]
        if areas is None:
            return [group]
        return [
            ImageGroup(select(group.joined, images), mask, [group.images[i] for i in images], pixels)
            for (pixels, images), mask in areas
        ]


def _areas(mask: Tensor, combine: str, tokens: int, q: Tensor, divided: bool) -> list[tuple[Part, Tensor]]:
    whole: list[Part] = [(None, list(range(len(mask))))]
    # More calls are cheaper than more products on a CPU alone.
    parts = split(mask, combine, tokens, q.shape[-1]) if divided and q.device.type == "cpu" else whole
    return [((p, images), (mask[images] if p is None else mask[images][:, p]).to(q)) for p, images in parts]


def _load(
    references: dict[int, ActiveReference], layer: Layer, roles: tuple[int, ...], q: Tensor, heads: int
) -> list[ImageGroup]:
    """Bring images that are combined in one way to the device, a row for each of q's."""
    numbers, images = list(references), list(references.values())
    rows = torch.tensor(roles, device=q.device).repeat_interleave(q.shape[0] // len(roles))
    keys, values = ([each.keys_values[layer.number][part].to(q)[rows] for each in images] for part in (0, 1))
    weights = [each.weights[layer.number] for each in images]
    groups = join_images(keys, values, weights, heads, images[0].combine)
    return [ImageGroup(joined, None, [numbers[i] for i in group]) for joined, group in groups]
