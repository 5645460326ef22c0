"""Attention to image tokens: every image in one matrix product, each with its own softmax, weight and mask.

With queries Q, and keys K_i, values V_i, weights s_i and masks m_i(l) of image i, and A = softmax(Q K^T / sqrt(d)) V:

* sum:    sum_i s_i m_i A(Q, K_i, V_i), the decoupled attention of Ye et al. 2023 for each image
* concat: one softmax over the tokens of all images, whose probabilities are then weighted by s_i m_i
* share:  images compete in proportion to s_i m_i, the strength is the largest of them: with Z_i the sum of image i's
          exponentials, max_i(s_i m_i) sum_i (s_i m_i Z_i / sum_j s_j m_j Z_j) A(Q, K_i, V_i)

Products are laid out as (tokens, pixels), so that softmax and masks run along contiguous pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COMBINES = ["sum", "share", "concat"]
LARGEST = 2**26
"""Probabilities held at once; more are computed in parts of the pixels."""

NEVER = -1e4
"""Logarithm of the weight of an image where its mask is 0: it vanishes in float16, too."""


@dataclass(frozen=True, eq=False)
class Bank:
    """Keys and values of images at one cross-attention, for the rows of a batch.

    Args:
        keys: (B, H, N, d), divided by sqrt(d).
        values: (B, H, N, d), weighted unless the images share.
        owners: the image of each of the N tokens.
        window: tokens under one softmax: those of one image, or all N.
        share: weights of the images when they share, else None.
    """

    keys: Tensor
    values: Tensor
    owners: Tensor
    window: int
    share: Tensor | None = None


def make_banks(
    keys: Sequence[Tensor], values: Sequence[Tensor], weights: Sequence[float], heads: int, combine: str
) -> list[tuple[Bank, list[int]]]:
    """Group images into banks: one for each token count when they are summed, else one in all.

    Args:
        keys: of each image (B, T_i, C).
        values: of each image (B, T_i, C).
        weights: of each image.
        heads: of the attention.
        combine: one of COMBINES.

    Returns:
        Banks, each with the numbers of its images.
    """
    images = range(len(keys))
    if combine == "sum":
        sizes = dict.fromkeys(k.shape[1] for k in keys)
        groups = [[i for i in images if keys[i].shape[1] == size] for size in sizes]
    else:
        groups = [list(images)]
    return [(_bank(keys, values, weights, heads, combine, group), group) for group in groups]


def _bank(
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    weights: Sequence[float],
    heads: int,
    combine: str,
    group: list[int],
) -> Bank:
    scale = (keys[0].shape[-1] // heads) ** -0.5
    share = combine == "share"
    k = torch.cat([keys[i] for i in group], dim=1)
    v = torch.cat([values[i] if share else values[i] * weights[i] for i in group], dim=1)
    owners = torch.cat([torch.full((keys[i].shape[1],), place) for place, i in enumerate(group)]).to(k.device)
    window = keys[group[0]].shape[1] if combine == "sum" else k.shape[1]
    k, v = ((t.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()) for t in (k * scale, v))
    return Bank(k, v, owners, window, k.new_tensor([weights[i] for i in group]) if share else None)


def attend(q: Tensor, bank: Bank, mask: Tensor | None = None) -> Tensor:
    """What the images add to a cross-attention's output.

    Args:
        q: queries (B, L, C).
        bank: the images.
        mask: where each image acts, 0..1, (n, L); None for everywhere.

    Returns:
        (B, L, C)
    """
    heads, tokens = bank.keys.shape[1:3]
    rows = max(1, LARGEST // (q.shape[0] * heads * tokens))
    if q.shape[1] <= rows:
        return _attend(q, bank, mask)
    masks = [None] * -(-q.shape[1] // rows) if mask is None else list(mask.split(rows, dim=-1))
    return torch.cat([_attend(*part) for part in zip(q.split(rows, dim=1), [bank] * len(masks), masks, strict=True)], 1)


def _attend(q: Tensor, bank: Bank, mask: Tensor | None) -> Tensor:
    q = q.unflatten(-1, (bank.keys.shape[1], -1)).permute(0, 2, 3, 1)
    logits = bank.keys @ q
    if bank.share is None:
        weight, strength = None if mask is None else mask[bank.owners], None
    else:
        shares = bank.share[:, None] if mask is None else bank.share[:, None] * mask
        logits = logits + shares.log().clamp(min=NEVER)[bank.owners]
        weight, strength = None, shares.amax(dim=0)[:, None]
    p = logits.unflatten(2, (-1, bank.window)).softmax(dim=3).flatten(2, 3)
    if weight is not None:
        p = p.mul_(weight)
    out = p.transpose(2, 3) @ bank.values
    if strength is not None:
        out = out * strength
    return out.transpose(1, 2).flatten(2)
