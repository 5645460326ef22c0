"""A margin of wrapped copies, added before work in tiles and blended away after it."""

from __future__ import annotations

import torch
from torch import Tensor


def extend(x: Tensor, down: int, across: int) -> Tensor:
    """Continue `x` (..., H, W) periodically, below and to the right: (..., H + down, W + across)."""
    height, width = x.shape[-2:]
    rows = torch.arange(height + down, device=x.device) % height
    columns = torch.arange(width + across, device=x.device) % width
    return x[..., rows[:, None], columns]


def fold(x: Tensor, down: int, across: int) -> Tensor:
    """Undo `extend`: cut the last `down` rows and `across` columns of `x` (..., H, W), faded into the first ones.

    The fade is linear, the cut part counting fully at the border, so the result continues over the border exactly as
    `x` continued from its period into the margin. Margins may be as large as the period, not larger.
    """
    return _fold_rows(_fold_rows(x, down).mT, across).mT.contiguous()


def _fold_rows(x: Tensor, margin: int) -> Tensor:
    if margin == 0:
        return x
    period = x.shape[-2] - margin
    fade = torch.arange(margin, device=x.device, dtype=x.dtype)[:, None] / margin
    head = torch.lerp(x[..., period:, :], x[..., :margin, :], fade)
    return torch.cat((head, x[..., margin:period, :]), dim=-2)
