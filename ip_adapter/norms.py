"""Group norms that normalise each masked area by itself.

A group norm subtracts the mean of the whole image and divides by its deviation, so areas that should look different
pull each other's colours together, the more so the fewer channels a group has. With p_r the share of area r at a pixel
(the masks, and what they leave free; shares sum to 1), mean m_r and deviation d_r weighted by p_r, the norm sees
sum_r p_r (x - m_r) / d_r in place of x: inside an area just what it would see if there were nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

SMALLEST = 1e-6
"""Size in pixels below which an area is left out."""

SharesAt = Callable[[tuple[int, int], int], "list[tuple[slice, Tensor | None]]"]
"""From (height, width) and the size of a batch to its rows, with the shares (n, h * w) of each area, None without."""


class AreaNorms:
    """The group norms of a network, which normalise areas one by one while `shares` says which."""

    def __init__(self) -> None:
        self.shares: SharesAt | None = None

    @contextmanager
    def installed(self, network: nn.Module) -> Iterator[None]:
        """Hook the group norms over (B, C, H, W) inside a `with` block; others stay as they are."""
        with ExitStack() as stack:
            for layer in network.modules():
                if isinstance(layer, nn.GroupNorm):
                    stack.callback(layer.register_forward_pre_hook(self._before).remove)
            yield

    @contextmanager
    def acting(self, shares: SharesAt | None) -> Iterator[None]:
        """Normalise by area inside a `with` block."""
        self.shares = shares
        try:
            yield
        finally:
            self.shares = None

    def _before(self, norm: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]
        if self.shares is None or x.ndim != 4:
            return inputs
        parts = [
            x[rows] if shares is None else levelled(x[rows], norm.num_groups, shares, norm.eps)
            for rows, shares in self.shares((x.shape[2], x.shape[3]), len(x))
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts), *inputs[1:])


def shares_of(planes: Tensor) -> Tensor:
    """Return the share of each area, and of what they leave free, at each pixel: from masks (n, L) to (n + 1, L)."""
    planes = planes.float()
    shares = torch.cat([planes, (1 - planes.sum(0, keepdim=True)).clamp(min=0)])
    return shares / shares.sum(0)


def levelled(x: Tensor, groups: int, shares: Tensor, eps: float) -> Tensor:
    """Return x (B, C, H, W) with mean 0 and deviation 1 of each group in each area; shares (n, H * W)."""
    values = rearrange(x.float(), "b (g c) h w -> b g c (h w)", g=groups)
    # Sums of squares lose fewer digits around the mean.
    values = values - values.mean((2, 3), keepdim=True)
    count = shares.sum(1).clamp(min=SMALLEST) * values.shape[2]
    mean = values.sum(2) @ shares.T / count
    variance = (values.square().sum(2) @ shares.T / count - mean.square()).clamp(min=0)
    steep = (variance + eps).rsqrt()
    scale, shift = (steep @ shares)[:, :, None], (mean * steep @ shares)[:, :, None]
    return rearrange(values * scale - shift, "b g c (h w) -> b (g c) h w", h=x.shape[2]).to(x.dtype)
