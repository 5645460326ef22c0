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
from einops import rearrange
from torch import Tensor

COMBINES = ["sum", "share", "concat"]
ROW_BY_ROW = "cpu"
"""On a CPU, a strided product per row avoids copies; elsewhere calls cost more than copies, so rows are batched."""

LARGEST = 2**17
"""Most probabilities in a block on a CPU: half a megabyte, so that a block stays in the cache."""

LARGEST_ELSEWHERE = 2**26
"""Most probabilities in a block on other devices."""

NEVER = -1e4
"""Logarithm of the weight of an image where its mask is 0: finite, and its exponential is 0 in float16, too."""


@dataclass(frozen=True, eq=False)
class JoinedImages:
    """Keys and values of images at one cross-attention layer, for the rows of a batch.

    Attributes:
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


def join_images(
    keys: Sequence[Tensor], values: Sequence[Tensor], weights: Sequence[float], heads: int, combine: str
) -> list[tuple[JoinedImages, list[int]]]:
    """Join images: those with the same number of tokens when they are summed, else all.

    Args:
        keys: of each image (B, T_i, C).
        values: of each image (B, T_i, C).
        weights: of each image.
        heads: of the attention.
        combine: one of COMBINES.

    Returns:
        Joined images, each with the numbers of its images.
    """
    images = range(len(keys))
    if combine == "sum":
        sizes = dict.fromkeys(k.shape[1] for k in keys)
        groups = [[i for i in images if keys[i].shape[1] == size] for size in sizes]
    else:
        groups = [list(images)]
    return [(_group(keys, values, weights, heads, combine, group), group) for group in groups]


def _group(
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    weights: Sequence[float],
    heads: int,
    combine: str,
    group: list[int],
) -> JoinedImages:
    scale = (keys[0].shape[-1] // heads) ** -0.5
    share = combine == "share"
    k = torch.cat([keys[i] for i in group], dim=1)
    v = torch.cat([values[i] if share else values[i] * weights[i] for i in group], dim=1)
    owners = torch.cat([torch.full((keys[i].shape[1],), place) for place, i in enumerate(group)]).to(k.device)
    window = keys[group[0]].shape[1] if combine == "sum" else k.shape[1]
    k, v = (rearrange(t, "b n (h d) -> b h n d", h=heads).contiguous() for t in (k * scale, v))
    return JoinedImages(k, v, owners, window, k.new_tensor([weights[i] for i in group]) if share else None)


def select(joined: JoinedImages, images: Sequence[int]) -> JoinedImages:
    """Return some of the images, whose numbers ascend."""
    chosen = torch.tensor(images, device=joined.owners.device)
    tokens = torch.isin(joined.owners, chosen)
    window = joined.window if joined.window < len(tokens) else int(tokens.sum())
    share = None if joined.share is None else joined.share[chosen]
    owners = torch.searchsorted(chosen, joined.owners[tokens])
    return JoinedImages(joined.keys[:, :, tokens], joined.values[:, :, tokens], owners, window, share)


def attend(q: Tensor, joined: JoinedImages, mask: Tensor | None = None) -> Tensor:
    """Return what the images add to the output of a cross-attention layer.

    Args:
        q: queries (B, L, C).
        joined: the images.
        mask: where each image acts, 0..1, (n, L); None for everywhere.

    Returns:
        (B, L, C)
    """
    return add_images(torch.zeros_like(q), q, joined, mask)


def add_images(
    out: Tensor, q: Tensor, joined: JoinedImages, mask: Tensor | None = None, pixels: Tensor | None = None
) -> Tensor:
    """Add what `attend` returns to `out` (B, L, C), in place.

    Args:
        out: changed in place.
        q: queries (B, L, C).
        joined: the images.
        mask: where each image acts, 0..1: (n, L), or (n, P) with `pixels`.
        pixels: numbers of the P pixels where the images act, when they do not act elsewhere.
    """
    if pixels is not None or q.device.type == ROW_BY_ROW:
        for row in range(len(q)):
            _add_row(out[row], q[row], joined, row, mask, pixels)
        return out
    keys, values = joined.keys.flatten(0, 1), joined.values.flatten(0, 1)
    for block in _blocks(q.shape[1], keys, LARGEST_ELSEWHERE):
        p = _weights(_by_head(q[:, block], joined).flatten(0, 1), keys, joined, mask, block)
        _by_head(out[:, block], joined).add_(torch.bmm(p, values).unflatten(0, joined.keys.shape[:2]))
    return out


def _add_row(
    out: Tensor, q: Tensor, joined: JoinedImages, row: int, mask: Tensor | None, pixels: Tensor | None
) -> None:
    """Add to one row (L, C), block by block."""
    keys, values = joined.keys[row], joined.values[row]
    for block in _blocks(len(q) if pixels is None else len(pixels), keys, LARGEST):
        chosen = q[block] if pixels is None else q.index_select(0, pixels[block])
        p = _weights(_by_head(chosen, joined), keys, joined, mask, block)
        if pixels is None:
            _by_head(out[block], joined).baddbmm_(p, values)
        else:
            out.index_add_(0, pixels[block], torch.bmm(p, values).transpose(0, 1).flatten(1))


def _blocks(pixels: int, keys: Tensor, largest: int) -> list[slice]:
    """Cut pixels into slices of at most `largest` products with keys (S, N, d)."""
    length = max(1, largest // keys[..., 0].numel())
    return [slice(start, start + length) for start in range(0, pixels, length)]


def _by_head(pixels: Tensor, joined: JoinedImages) -> Tensor:
    """View (..., l, C) as (..., H, l, d); never a copy, as results are added in place."""
    return pixels.view(*pixels.shape[:-1], joined.keys.shape[1], -1).transpose(-3, -2)


def _weights(q: Tensor, keys: Tensor, joined: JoinedImages, mask: Tensor | None, block: slice) -> Tensor:
    """Return the weights of the values (S, l, N) for queries (S, l, d)."""
    logits = torch.bmm(keys, q.transpose(1, 2))
    return _probabilities(logits, joined, None if mask is None else mask[:, block]).transpose(1, 2)


def _probabilities(logits: Tensor, joined: JoinedImages, mask: Tensor | None) -> Tensor:
    """Return the weights of the values from logits of the same shape (S, N, l); S are rows and heads."""
    strength = None
    if joined.share is not None:
        shares = joined.share[:, None] if mask is None else joined.share[:, None] * mask
        logits, strength = logits + shares.log().clamp(min=NEVER)[joined.owners], shares.amax(dim=0)
    p = logits.view(len(logits), -1, joined.window, logits.shape[2]).softmax(dim=2)
    if strength is not None:
        p = p.mul_(strength)
    elif mask is not None:
        p = p.mul_(mask[:, None] if p.shape[1] == len(mask) else mask[joined.owners])
    return p.flatten(1, 2)
