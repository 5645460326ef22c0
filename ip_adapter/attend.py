"""Attention to image tokens: every image in one matrix product, each with its own softmax, weight and mask.

With queries Q, and keys K_i, values V_i, weights s_i and masks m_i(l) of image i, and A = softmax(Q K^T / sqrt(d)) V:

* sum:    sum_i s_i m_i A(Q, K_i, V_i), the decoupled attention of Ye et al. 2023 for each image
* concat: one softmax over the tokens of all images, whose probabilities are then weighted by s_i m_i
* share:  images compete in proportion to s_i m_i, the strength is the largest of them: with Z_i the sum of image i's
          exponentials, max_i(s_i m_i) sum_i (s_i m_i Z_i / sum_j s_j m_j Z_j) A(Q, K_i, V_i)

Products are laid out as (tokens, pixels), so that softmax and masks run along contiguous pixels, and are computed in
blocks of pixels that stay in a processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COMBINES = ["sum", "share", "concat"]
LARGEST = {"cpu": 2**17}
"""Probabilities of a block by kind of device: half a megabyte on a CPU, so that each is touched in the cache alone."""

LARGEST_ELSEWHERE = 2**26

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


def only(bank: Bank, images: Sequence[int]) -> Bank:
    """The bank of some of its images, in ascending order."""
    chosen = torch.tensor(images, device=bank.owners.device)
    tokens = torch.isin(bank.owners, chosen)
    window = bank.window if bank.window < len(tokens) else int(tokens.sum())
    share = None if bank.share is None else bank.share[chosen]
    owners = torch.searchsorted(chosen, bank.owners[tokens])
    return Bank(bank.keys[:, :, tokens], bank.values[:, :, tokens], owners, window, share)


def attend(q: Tensor, bank: Bank, mask: Tensor | None = None) -> Tensor:
    """What the images add to a cross-attention's output.

    Args:
        q: queries (B, L, C).
        bank: the images.
        mask: where each image acts, 0..1, (n, L); None for everywhere.

    Returns:
        (B, L, C)
    """
    return _in_blocks(torch.empty_like(q), q, bank, mask, beta=0)


def add_images(out: Tensor, q: Tensor, bank: Bank, mask: Tensor | None = None, pixels: Tensor | None = None) -> Tensor:
    """Add what `attend` gives to `out` (B, L, C), in place.

    Args:
        pixels: numbers of the P pixels where the images act, when they do not act elsewhere; then the mask is (n, P).
    """
    if pixels is None:
        return _in_blocks(out, q, bank, mask, beta=1)
    return out.index_add_(1, pixels, attend(q.index_select(1, pixels), bank, mask))


def _in_blocks(out: Tensor, q: Tensor, bank: Bank, mask: Tensor | None, beta: int) -> Tensor:
    """Add to `beta` times `out`, in place."""
    heads, tokens = bank.keys.shape[1:3]
    # A CPU multiplies strided matrices of one row without copying them; a GPU waits for calls, so it gets all rows.
    rows = 1 if q.device.type == "cpu" else q.shape[0]
    pixels = max(1, LARGEST.get(q.device.type, LARGEST_ELSEWHERE) // (rows * heads * tokens))
    for start in range(0, q.shape[1], pixels):
        block = slice(start, start + pixels)
        seen = None if mask is None else mask[:, block]
        for row in range(0, q.shape[0], rows):
            batch = slice(row, row + rows)
            _block(out[batch, block], q[batch, block], bank, batch, seen, beta)
    return out


def _block(out: Tensor, q: Tensor, bank: Bank, batch: slice, mask: Tensor | None, beta: int) -> None:
    keys, values = bank.keys[batch], bank.values[batch]
    out, q = (tensor.unflatten(-1, (keys.shape[1], -1)).transpose(1, 2) for tensor in (out, q))
    p = _probabilities(keys @ q.transpose(2, 3), bank, mask).transpose(2, 3)
    if len(p) == 1:
        out[0].baddbmm_(p[0], values[0], beta=beta)
    elif beta:
        out += p @ values
    else:
        out.copy_(p @ values)


def _probabilities(logits: Tensor, bank: Bank, mask: Tensor | None) -> Tensor:
    """Weights of the values (b, H, N, l), from products of the same shape."""
    strength = None
    if bank.share is not None:
        shares = bank.share[:, None] if mask is None else bank.share[:, None] * mask
        logits, strength = logits + shares.log().clamp(min=NEVER)[bank.owners], shares.amax(dim=0)
    p = logits.unflatten(2, (-1, bank.window)).softmax(dim=3)
    if strength is not None:
        p = p.mul_(strength)
    elif mask is not None:
        p = p.mul_(mask[:, None] if p.shape[2] == len(mask) else mask[bank.owners])
    return p.flatten(2, 3)
