"""Group norms that normalise each masked area by itself.

A group norm subtracts the mean of the whole image and divides by its deviation, so areas that should look different
pull each other's colours together, the more so the fewer channels a group has. With p_r the share of area r at a pixel
(the masks, and what they leave free; shares sum to 1), mean m_r and deviation d_r weighted by p_r, the norm sees
sum_r p_r (x - m_r) / d_r in place of x: inside an area just what it would see if there were nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from .masks import pool

SMALLEST = 1e-6
"""Size in pixels below which an area is left out."""


@contextmanager
def norms_apart(network: nn.Module, masks: Sequence[Tensor]) -> Iterator[None]:
    """Let the group norms of `network` normalise areas one by one inside a `with` block.

    Args:
        network: its group norms over (B, C, H, W) change; others stay as they are.
        masks: one (H, W) in 0..1 for each area.
    """
    areas: dict[tuple[int, int], Tensor] = {}

    def before(norm: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]
        if x.ndim != 4:
            return inputs
        grid = (x.shape[2], x.shape[3])
        if grid not in areas:
            areas[grid] = shares_of(masks, grid).to(x.device)
        return (levelled(x, norm.num_groups, areas[grid], norm.eps), *inputs[1:])

    with ExitStack() as stack:
        for layer in network.modules():
            if isinstance(layer, nn.GroupNorm):
                stack.callback(layer.register_forward_pre_hook(before).remove)
        yield


def shares_of(masks: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Return the share of each area, and of what they leave free, at each pixel of a grid: (n, h, w), sums to 1."""
    planes = pool(list(masks), grid)
    assert planes is not None
    rest = (1 - planes.sum(0, keepdim=True)).clamp(min=0)
    shares = rearrange(torch.cat([planes, rest]), "n (h w) -> n h w", h=grid[0])
    return (shares / shares.sum(0))[shares.sum((1, 2)) > SMALLEST]


def levelled(x: Tensor, groups: int, shares: Tensor, eps: float) -> Tensor:
    """Return x (B, C, H, W) with mean 0 and deviation 1 of each group in each area; shares (n, H, W)."""
    values = rearrange(x.float(), "b (g c) h w -> b g c h w", g=groups)
    out = torch.zeros_like(values)
    for share in shares:
        count = share.sum() * values.shape[2]
        mean = (values * share).sum((2, 3, 4), keepdim=True) / count
        variance = ((values - mean).square() * share).sum((2, 3, 4), keepdim=True) / count
        out += share * (values - mean) * (variance + eps).rsqrt()
    return rearrange(out, "b g c h w -> b (g c) h w").to(x.dtype)
