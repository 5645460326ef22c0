"""Heat maps of where image prompts act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from .attend import JoinedImages, attend

RECORD = "tessera_image_prompts_record"
"""Transformer option: the `Record` of a run."""


@dataclass(eq=False)
class Record:
    """Norm of what attention adds for each image over that of its output for the text.

    Attributes:
        maps: (h, w) of every layer, by number of the image.
    """

    maps: dict[int, list[Tensor]] = field(default_factory=dict)

    def add(
        self,
        out: Tensor,
        q: Tensor,
        joined: JoinedImages,
        mask: Tensor | None,
        images: Sequence[int],
        grid: tuple[int, int],
        row: int = 0,
    ) -> None:
        """Record one layer. out: its output without images (B, L, C); the batch holds positive rows only."""
        for place, image in enumerate(images):
            self.note(image, attend(q, joined.only(place), mask, row), out, grid)

    def note(self, image: int, added: Tensor, out: Tensor, grid: tuple[int, int]) -> None:
        """Record what one image adds at a layer, beside its output without images; both (B, L, C)."""
        share = added.norm(dim=-1) / out.norm(dim=-1).clamp(min=1e-6)
        self.maps.setdefault(image, []).append(rearrange(share.mean(0).float().cpu(), "(h w) -> h w", h=grid[0]))


def heat_maps(record: Record, count: int, size: tuple[int, int]) -> Tensor:
    """Draw black to red to yellow to white for each image (count, H, W, 3), white where any of them acts most.

    Args:
        record: of one step.
        count: how many images there are.
        size: of the maps in pixels (height, width).
    """
    planes = [_mean(record.maps.get(image, []), size) for image in range(count)]
    heat = torch.stack(planes)
    heat = heat / heat.max().clamp(min=1e-6)
    return torch.stack([(heat * 3 - i).clamp(0, 1) for i in range(3)], dim=-1)


def _mean(maps: list[Tensor], size: tuple[int, int]) -> Tensor:
    if not maps:
        return torch.zeros(size)
    scaled = [F.interpolate(plane[None, None], size, mode="bilinear", align_corners=False)[0, 0] for plane in maps]
    return torch.stack(scaled).mean(0)
