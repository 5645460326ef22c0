"""Rotary positions as complex numbers, in the place of diffusers' tables, which seamless textures could not change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ComplexPosEmbed(nn.Module):
    """Turns positions into rotations (RoFormer, arXiv:2104.09864).

    Args:
        theta: base of the frequencies.
        axes_dim: numbers of a head that each axis of positions turns.
    """

    def __init__(self, theta: float, axes_dim: Sequence[int]) -> None:
        super().__init__()
        self.theta, self.axes_dim = theta, tuple(axes_dim)

    def forward(self, ids: Tensor) -> Tensor:
        """Return rotations (N, D / 2), complex, of positions (N, A)."""
        exact = torch.float32 if ids.device.type == "mps" else torch.float64
        angles: list[Tensor] = []
        for axis, size in enumerate(self.axes_dim):
            frequencies = self.theta ** -(torch.arange(0, size, 2, device=ids.device, dtype=exact) / size)
            angles.append(ids[:, axis, None].to(exact) * frequencies)
        found = torch.cat(angles, 1).float()
        return torch.polar(torch.ones_like(found), found)
