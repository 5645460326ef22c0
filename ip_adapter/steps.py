"""One call of a model: which image prompts act, for which rows of the batch, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from .areas import split
from .attend import Patches, add_images, add_patches
from .layers import Layer
from .maps import Record
from .masks import Grid, MasksOnGrids
from .stack import GroupsByLayer, ImageGroup

AREAS = "cpu"
"""Devices on which more calls are cheaper than more products: there the image is divided into areas."""


class Rows(NamedTuple):
    """Rows of a batch that see the same.

    Attributes:
        first: number of the first conditioning.
        stop: number behind the last one.
        role: 0 sees the images, 1 the unconditional ones.
        masks: where the images act in the part of the image that the call covers; None without masks.
    """

    first: int
    stop: int
    role: int
    masks: MasksOnGrids | None


def rows_of(roles: Sequence[int], masks: Sequence[MasksOnGrids | None]) -> tuple[Rows, ...]:
    """Join neighbouring conditionings of a batch that see the same."""
    found: list[Rows] = []
    for number, (role, mask) in enumerate(zip(roles, masks, strict=True)):
        if found and (found[-1].role, found[-1].masks) == (role, mask):
            found[-1] = found[-1]._replace(stop=number + 1)
        else:
            found.append(Rows(number, number + 1, role, mask))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Step:
    """What the layers need to know in one call of the model. Layers only read it.

    Attributes:
        groups: the images on the device.
        active: the numbers of those that act.
        rows: of the batch.
        conditionings: in the batch.
        size: of the latents in this call (height, width).
    """

    groups: GroupsByLayer
    active: frozenset[int]
    rows: tuple[Rows, ...]
    conditionings: int
    size: Grid

    def prepare(self, layers: Sequence[Layer]) -> None:
        """Bring the masks to the grids of the layers before the network runs, on a CPU divided into areas."""
        for masks in {id(rows.masks): rows.masks for rows in self.rows if rows.masks is not None}.values():
            for layer in layers:
                grid = layer.grid(self.size)
                masks.add_grid(grid)
                for group in self.groups.get(layer.number, ()):
                    chosen = self._chosen(group)
                    if chosen and masks.acts(chosen) and group.joined.keys.device.type == AREAS:
                        masks.add_parts(grid, chosen, group.kind, lambda mask, kind=group.kind: split(mask, *kind))

    def acts(self, layer: Layer, joint: bool) -> bool:
        """Return whether an image acts at a layer; `joint` as in `add`."""
        return any(group.joint == joint and self._chosen(group) for group in self.groups.get(layer.number, ()))

    def _chosen(self, group: ImageGroup) -> tuple[int, ...]:
        return tuple(image for image in group.images if image in self.active)

    def add(
        self,
        out: Tensor,
        q: Tensor,
        layer: Layer,
        grid: Grid,
        record: Record | None = None,
        text: int = 0,
        joint: bool = False,
    ) -> Tensor:
        """Add all images to the output of a layer, in place.

        Args:
            out: the layer's output (B, L, C).
            q: its queries (B, L, C).
            layer: the layer.
            grid: (height, width) of the pixels.
            record: where to record how strongly each image acts.
            text: how many of the L rows are text, in front of the pixels; they see images without masks alone.
            joint: which adapters act, see `formats.Adapter`.
        """
        each = len(q) // self.conditionings
        for rows in self.rows:
            span = slice(rows.first * each, rows.stop * each)
            for group in self.groups.get(layer.number, ()):
                chosen = self._chosen(group)
                if chosen and group.joint == joint and (rows.role == 1 or not group.against):
                    self._add(out[span], q[span], group, chosen, rows, grid, record, text)
        return out

    def _add(
        self,
        out: Tensor,
        q: Tensor,
        group: ImageGroup,
        chosen: tuple[int, ...],
        rows: Rows,
        grid: Grid,
        record: Record | None,
        text: int,
    ) -> None:
        places = [place for place, image in enumerate(group.images) if image in chosen]
        joined = group.joined.select(places).to(q.dtype)
        row = 0 if group.against else rows.role
        masks = rows.masks if rows.masks is not None and rows.masks.acts(chosen) else None
        if record is not None:
            seen = None if masks is None else masks.rows(grid, chosen)
            record.add(out[:, text:], q[:, text:], joined, seen, chosen, grid, row)
        if masks is None:
            add_images(out, q, joined, None, row)
            return
        everywhere = [place for place, image in enumerate(chosen) if image not in masks.masked]
        if text and everywhere:
            add_images(out[:, :text], q[:, :text], joined.select(everywhere), None, row)
        out, q = out[:, text:], q[:, text:]
        for part, mask in masks.parts(grid, chosen, group.kind):
            if isinstance(part, Patches):
                add_patches(out, q, joined, part, None if mask is None else mask.to(q), row)
            else:
                pixels, images = part
                add_images(out, q, joined.select(images), None if mask is None else mask.to(q), row, pixels)
