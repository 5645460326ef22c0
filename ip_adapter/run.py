"""What is kept from the first step of a run to its last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..patching.residents import on_device
from .masks import Grid, MasksOnGrids, Region, cut, fit
from .reference import ActiveReference
from .stack import GroupsByLayer, KeptImages
from .steps import Step, rows_of
from .timed import TimedGroup

CONDITIONAL = {"positive", "middle"}
"""Names of a guider's conditionings that see the images; all others see the unconditional tokens."""


@dataclass(eq=False)
class RunMemory:
    """What the steps of a run share.

    Attributes:
        kept: the images' keys and values.
        size: of the latents (height, width).
        masks: of the images, cropped as the image was; None for images that act everywhere.
        names: uuid of a conditioning -> its name in the guider.
        roles: number of a conditioning in a batch -> 0 (sees the images) or 1 (sees the unconditional tokens).
        regions: uuid of a conditioning -> the part of the image that it covers.
    """

    kept: KeptImages
    size: Grid
    masks: tuple[Tensor | None, ...]
    names: dict[Any, str] = field(default_factory=dict)
    roles: dict[int, int] = field(default_factory=dict)
    regions: dict[Any, Region] = field(default_factory=dict)
    _groups: dict[torch.device, GroupsByLayer] = field(default_factory=dict)
    _timed: dict[torch.device, list[TimedGroup]] = field(default_factory=dict)
    _masks: dict[tuple[torch.device, Region | None], MasksOnGrids] = field(default_factory=dict)

    @classmethod
    def begin(cls, kept: KeptImages, size: Grid, pixels: int = 8, names: Mapping[Any, str] | None = None) -> RunMemory:
        """Begin a run over latents of a size.

        Raises:
            ValueError: a mask has another aspect than the latents.
        """
        many = len(kept.references) > 1
        masks = tuple(
            None if each.mask is None else fit(each.mask, size, pixels, f" of image prompt {number}" if many else "")
            for number, each in enumerate(kept.references, 1)
        )
        return cls(kept, size, masks, dict(names or {}))

    @property
    def references(self) -> Sequence[ActiveReference]:
        """The images."""
        return self.kept.references

    @property
    def masked(self) -> bool:
        """Whether an image has a mask."""
        return any(mask is not None for mask in self.masks)

    def note(self, number: int, conds: Sequence[Mapping[str, Any]]) -> None:
        """Note what conditionings of one number are.

        A host gives an area of the opposite prompt a partner here, behind its own, which keeps the opposite's uuid:
        the first one tells what all of them are.
        """
        name = self.names.get(conds[0].get("uuid"))
        if name is not None:
            self.roles[number] = int(name not in CONDITIONAL)
        for cond in conds:
            if "area" in cond:
                height, width, top, left = cond["area"][:4]
                self.regions[cond["uuid"]] = (
                    min(height, self.size[0] - top),
                    min(width, self.size[1] - left),
                    top,
                    left,
                )

    def role(self, number: int, identity: Any) -> int:
        """Return what a conditioning of a batch sees; where a host does not tell, the second one is the negative."""
        if number in self.roles:
            return self.roles[number]
        name = self.names.get(identity)
        return int(number == 1) if name is None else int(name not in CONDITIONAL)

    def region(self, identity: Any, size: Grid) -> Region | None:
        """Return the part of the image that a conditioning covers in a call over latents of a size.

        Raises:
            ValueError: the call covers another part than its conditioning.
        """
        if size == self.size:
            return None
        region = self.regions.get(identity)
        if region is None or region[:2] != size:
            raise ValueError(
                f"Image prompts with masks met a call for {size[1]} x {size[0]} of {self.size[1]} x {self.size[0]} "
                "latents that no conditioning asks for, as extensions make that cut an image into tiles; remove the "
                "masks, or that extension."
            )
        return region

    def step(self, ids: Sequence[tuple[int, Any]], active: Sequence[int], size: Grid, device: torch.device) -> Step:
        """Return what the layers need in one call; tensors go to the device here, before the network runs.

        Args:
            ids: of each conditioning in the batch, its number and its uuid.
            active: numbers of the images that act.
            size: of the latents in the call.
            device: of the call.

        Raises:
            ValueError: with masks, the call covers a part of the image that is not known.
        """
        if device not in self._groups:
            self._groups[device] = self.kept.stack.on(device)
        masks = [self._masks_in(self.region(identity, size), device) if self.masked else None for _, identity in ids]
        rows = rows_of([self.role(*each) for each in ids], masks)
        step = Step(self._groups[device], frozenset(active), rows, len(ids), size)
        step.prepare(self.kept.layers)
        return step

    def timed_on(self, device: torch.device) -> list[TimedGroup]:
        """Return the images whose keys and values change with the noise level, on a device."""
        if device not in self._timed:
            self._timed[device] = self.kept.timed_on(device)
        return self._timed[device]

    def _masks_in(self, region: Region | None, device: torch.device) -> MasksOnGrids:
        key = (device, region)
        if key not in self._masks:
            moved = [None if mask is None else on_device(mask, device) for mask in self.masks]
            part = [m if m is None or region is None else cut(m, self.size, region) for m in moved]
            self._masks[key] = MasksOnGrids(part, self.kept.dtype)
        return self._masks[key]

    def held(self) -> int:
        """Return the bytes of keys and values on devices."""
        groups = (group for layers in self._groups.values() for found in layers.values() for group in found)
        return sum(group.joined.keys.nbytes + group.joined.values.nbytes for group in groups)
