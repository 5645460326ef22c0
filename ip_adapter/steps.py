"""What image prompts are at one step of a run: which of them act, with which keys, values and masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..patching.schedule import ScheduleRange
from .areas import Part, split
from .attend import KeysValues, add_images, make_keys_values, select
from .layers import Layer
from .maps import Record
from .masks import pool
from .presets import BlockWeights, weight_at
from .reference import Reference

STEP = "tessera_image_prompts_step"


@dataclass(frozen=True, eq=False)
class Use:
    """An image at work.

    Args:
        reference: its keys and values.
        scale: 0..1.
        gains: weights of the blocks.
        schedule: the part of it in which it acts.
        mask: where it acts (H, W) in 0..1; None for everywhere.
    """

    reference: Reference
    scale: float
    gains: BlockWeights
    schedule: ScheduleRange = ScheduleRange()
    mask: Tensor | None = None

    def weight(self, layer: Layer) -> float:
        """How strongly it acts at a cross-attention."""
        return self.scale * weight_at(self.gains, layer)


@dataclass(frozen=True, eq=False)
class Stack:
    """Images that are combined: one of `attend.COMBINES`; `apart` when group norms level their areas one by one."""

    uses: tuple[Use, ...]
    combine: str
    apart: bool = False


class ImageGroup(NamedTuple):
    """Images under one attention: their bank, their masks (n, L), their numbers.

    Where they act on P pixels only, these have numbers, too, and the masks are (n, P).
    """

    bank: KeysValues
    mask: Tensor | None
    images: list[int]
    pixels: Tensor | None = None


@dataclass(eq=False)
class RunMemory:
    """What is kept from the first step of a run to its last.

    Args:
        size: of the latents (height, width).
        names: uuid of a conditioning -> its name in the guider.
        masks: of images, by number, cut down as the picture was.
        banks: keys and values on the device, by layer, images that act, and rows.
        areas: parts of the picture, with the masks (n, P) there; None without masks.
    """

    size: tuple[int, int] | None = None
    names: dict[Any, str] = field(default_factory=dict)
    masks: dict[int, Tensor] = field(default_factory=dict)
    banks: dict[Any, list[ImageGroup]] = field(default_factory=dict)
    areas: dict[Any, list[tuple[Part, Tensor]] | None] = field(default_factory=dict)

    def mask_of(self, number: int, use: Use) -> Tensor | None:
        """Where the image of a number acts (H, W)."""
        return self.masks.get(number, use.mask)


@dataclass(frozen=True, eq=False)
class Step:
    """What one call of the model needs to know.

    Args:
        memory: of its run.
        stacks: all images.
        active: the numbers of those that act.
        roles: for each conditioning in the batch 0 (sees the images) or 1 (sees the unconditional tokens).
        size: of the latents in this call (height, width).
        queries: of Flux's double blocks that are running, by number.
    """

    memory: RunMemory
    stacks: tuple[Stack, ...]
    active: tuple[int, ...]
    roles: tuple[int, ...]
    size: tuple[int, int]
    queries: dict[int, Tensor] = field(default_factory=dict)

    def add(
        self, out: Tensor, q: Tensor, layer: Layer, heads: int, grid: tuple[int, int], record: Record | None
    ) -> Tensor:
        """Add what all images say at a layer to `out` (B, L, C), in place."""
        entries = self.entries(layer, q, heads, grid, divided=record is None)
        if record is not None:
            for bank, mask, images, _ in entries:
                record.add(out, q, bank, mask, images, grid)
        for bank, mask, _, pixels in entries:
            add_images(out, q, bank, mask, pixels)
        return out

    def entries(
        self, layer: Layer, q: Tensor, heads: int, grid: tuple[int, int], divided: bool = True
    ) -> list[ImageGroup]:
        """The images at a layer, from the run's memory; `divided` by the areas where they act, if that is cheaper."""
        key = (layer.number, self.active, self.roles, q.shape[0], grid, q.dtype, q.device, divided)
        if key not in self.memory.banks:
            first, found = 0, []
            for stack in self.stacks:
                numbers = [n for n in range(first, first + len(stack.uses)) if n in self.active]
                uses = {n: stack.uses[n - first] for n in numbers if stack.uses[n - first].weight(layer)}
                if uses:
                    for entry in _load(uses, stack.combine, layer, self.roles, q, heads):
                        found += self._placed(entry, uses, stack.combine, grid, q, divided)
                first += len(stack.uses)
            self.memory.banks[key] = found
        return self.memory.banks[key]

    def _placed(
        self, entry: ImageGroup, uses: dict[int, Use], combine: str, grid: tuple[int, int], q: Tensor, divided: bool
    ) -> list[ImageGroup]:
        """The same with masks, one for each area."""
        tokens = entry.bank.keys.shape[2] // len(entry.images)
        key = (grid, tuple(entry.images), combine, tokens, q.shape[-1], divided)
        if key not in self.memory.areas:
            mask = pool([self.memory.mask_of(image, uses[image]) for image in entry.images], grid)
            self.memory.areas[key] = None if mask is None else _areas(mask, combine, tokens, q, divided)
        areas = self.memory.areas[key]
        if areas is None:
            return [entry]
        return [
            ImageGroup(select(entry.bank, images), mask, [entry.images[i] for i in images], pixels)
            for (pixels, images), mask in areas
        ]


def _areas(mask: Tensor, combine: str, tokens: int, q: Tensor, divided: bool) -> list[tuple[Part, Tensor]]:
    whole: list[Part] = [(None, list(range(len(mask))))]
    # More calls are cheaper than more products on a CPU alone.
    parts = split(mask, combine, tokens, q.shape[-1]) if divided and q.device.type == "cpu" else whole
    return [((p, images), (mask[images] if p is None else mask[images][:, p]).to(q)) for p, images in parts]


def _load(
    uses: dict[int, Use], combine: str, layer: Layer, roles: tuple[int, ...], q: Tensor, heads: int
) -> list[ImageGroup]:
    numbers, images = list(uses), list(uses.values())
    rows = torch.tensor(roles, device=q.device).repeat_interleave(q.shape[0] // len(roles))
    pairs = [use.reference.pairs[layer.number] for use in images]
    keys, values = ([pair[part].to(q)[rows] for pair in pairs] for part in (0, 1))
    banks = make_keys_values(keys, values, [use.weight(layer) for use in images], heads, combine)
    return [ImageGroup(bank, None, [numbers[i] for i in group]) for bank, group in banks]
