"""Token merging for Stable Diffusion (Bolya & Hoffman 2023): similar tokens of the image attend as one.

Of each 2 x 2 cell of the token grid the first token stays; of the others, the `count` that are most like a token that
stays are averaged into it. Afterwards each takes back what its token became.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

CELL = 2

Merge = Callable[[Tensor], Tensor]


def token_merging(tokens: Tensor, height: int, width: int, ratio: float) -> tuple[Merge, Merge]:
    """Return how to merge and to unmerge.

    Args:
        tokens: (B, height * width, C), by which similarity is measured.
        ratio: the part of all tokens that is merged away, 0..1; at most three quarters are.

    Returns:
        merge: (B, N, D) -> (B, N - count, D), and unmerge, back to (B, N, D).
    """
    stay, go = _partition(height, width, tokens.device)
    count = min(len(go), int(height * width * ratio))
    unit = F.normalize(tokens, dim=-1)
    best, target = (unit[:, go] @ unit[:, stay].transpose(1, 2)).max(dim=-1)
    order = best.argsort(dim=-1, descending=True, stable=True)
    merged, kept = order[:, :count], order[:, count:]
    into = target.gather(1, merged)

    def merge(x: Tensor) -> Tensor:
        goers, stayers = x[:, go], x[:, stay]
        stayers = stayers.scatter_reduce(1, _wide(into, x), goers.gather(1, _wide(merged, x)), "mean")
        return torch.cat([goers.gather(1, _wide(kept, x)), stayers], dim=1)

    def unmerge(x: Tensor) -> Tensor:
        goers, stayers = x[:, : kept.shape[1]], x[:, kept.shape[1] :]
        whole = x.new_empty(x.shape[0], height * width, x.shape[2])
        whole[:, stay] = stayers
        whole.scatter_(1, _wide(go[kept], x), goers)
        return whole.scatter_(1, _wide(go[merged], x), stayers.gather(1, _wide(into, x)))

    return merge, unmerge


def _partition(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the places of the tokens that stay, the first of each whole cell, and of all others."""
    stays = torch.zeros(height, width, dtype=torch.bool, device=device)
    stays[: height // CELL * CELL : CELL, : width // CELL * CELL : CELL] = True
    # Sorted and not looked for, since how many are found is known here, and a GPU would be waited for.
    count = (height // CELL) * (width // CELL)
    order = stays.flatten().int().argsort(stable=True)
    return order[len(order) - count :], order[: len(order) - count]


def _wide(index: Tensor, like: Tensor) -> Tensor:
    return index.unsqueeze(-1).expand(-1, -1, like.shape[-1])
