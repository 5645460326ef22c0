"""Attention to image tokens: every image in one matrix product, each with its own softmax, weight and mask.

With queries Q, and keys K_i, values V_i, weights s_i and masks m_i(l) of image i, and A = softmax(Q K^T / sqrt(d)) V:

* sum:    sum_i s_i m_i A(Q, K_i, V_i), the decoupled attention of Ye et al. 2023 for each image
* concat: one softmax over the tokens of all images, whose probabilities are then weighted by s_i m_i
* share:  images compete in proportion to s_i m_i, the strength is the largest of them: with Z_i the sum of image i's
          exponentials, max_i(s_i m_i) sum_i (s_i m_i Z_i / sum_j s_j m_j Z_j) A(Q, K_i, V_i)

Keys and values are kept once for the images and once for the unconditional ones, whatever the batch. The rows of a
batch that see the same of the two follow each other as pixels of one long image, so that nothing is copied for them.
Products are laid out as (tokens, pixels), so that softmax and masks run along contiguous pixels, and are computed in
blocks of pixels that stay in a processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

COMBINES = ["sum", "share", "concat"]
UNFUSED = "cpu"
"""A CPU keeps its own softmax: blocks stay in its cache, and results are added in place, which fused ones are not."""

LARGEST = 2**17
"""Most probabilities in a block on a CPU: half a megabyte, so that a block stays in the cache."""

LARGEST_ELSEWHERE = 2**27
"""Most probabilities in a block on other devices: 256 MB in half precision; a batch of 16 at 512 px is below."""

NEVER = -1e4
"""Logarithm of the weight of an image where its mask is 0: finite, and its exponential is 0 in float16, too."""


@dataclass(frozen=True, eq=False)
class JoinedImages:
    """Keys and values of images at one cross-attention layer; row 0 is the images, row 1 the unconditional ones.

    Attributes:
        keys: (2, H, N, d), divided by sqrt(d).
        values: (2, H, N, d), weighted unless the images share.
        lengths: tokens of each image; they sum to N.
        apart: whether each image has a softmax of its own; all have the same length then.
        share: weights of the images (n,) when they share, else None.
        strength: the largest of them.
    """

    keys: Tensor
    values: Tensor
    lengths: tuple[int, ...]
    apart: bool
    share: Tensor | None = None
    strength: tuple[float, ...] = ()

    def select(self, images: Sequence[int]) -> JoinedImages:
        """Return some of the images, whose numbers ascend: views where they follow each other."""
        if len(images) == len(self.lengths):
            return self
        ends = [sum(self.lengths[:i]) for i in range(len(self.lengths) + 1)]
        return replace(
            self,
            keys=take(self.keys, 2, images, ends),
            values=take(self.values, 2, images, ends),
            lengths=tuple(self.lengths[i] for i in images),
            share=None if self.share is None else take(self.share, 0, images),
            strength=tuple(self.strength[i] for i in images) if self.strength else (),
        )

    def to(self, dtype: torch.dtype) -> JoinedImages:
        """Return the same in a dtype."""
        if self.keys.dtype == dtype:
            return self
        share = None if self.share is None else self.share.to(dtype)
        return replace(self, keys=self.keys.to(dtype), values=self.values.to(dtype), share=share)

    def only(self, image: int) -> JoinedImages:
        """Return the same images, of which a single one has values: what it adds beside the others."""
        before = sum(self.lengths[:image])
        values = torch.zeros_like(self.values)
        span = slice(before, before + self.lengths[image])
        values[:, :, span] = self.values[:, :, span]
        return replace(self, values=values)


class Patches(NamedTuple):
    """Pixels on which images act one by one.

    Attributes:
        pixels: their numbers (P,), of one image after the other.
        images: numbers of the images.
        ends: where the pixels of each begin, and where those of the last one end.
    """

    pixels: Tensor
    images: tuple[int, ...]
    ends: tuple[int, ...]


def take(tensor: Tensor, dim: int, images: Sequence[int], ends: Sequence[int] | None = None) -> Tensor:
    """Return the parts of a tensor that belong to images: a view where they follow each other.

    No index goes to the device, for which a GPU would wait.

    Args:
        tensor: with a part for each image.
        dim: along which the parts lie.
        images: numbers, which ascend.
        ends: where each part begins, and the end of the last one; None where every part has the length 1.
    """
    breaks = [0, *(i for i in range(1, len(images)) if images[i] != images[i - 1] + 1), len(images)]
    runs = [(images[a], images[b - 1] + 1) for a, b in pairwise(breaks)]
    bounds = [(a, b) if ends is None else (ends[a], ends[b]) for a, b in runs]
    parts = [tensor.narrow(dim, a, b - a) for a, b in bounds]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def join_images(
    keys: Sequence[Tensor], values: Sequence[Tensor], weights: Sequence[float], heads: int, combine: str
) -> list[tuple[JoinedImages, list[int]]]:
    """Join images: those with the same number of tokens when they are summed, else all.

    Args:
        keys: of each image (2, T_i, C).
        values: of each image (2, T_i, C).
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
    k = torch.cat([keys[i] * scale for i in group], dim=1)
    v = torch.cat([values[i] if share else values[i] * weights[i] for i in group], dim=1)
    k, v = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous() for tensor in (k, v))
    shares = tuple(weights[i] for i in group) if share else ()
    lengths = tuple(keys[i].shape[1] for i in group)
    return JoinedImages(k, v, lengths, combine == "sum", k.new_tensor(shares) if share else None, shares)


def attend(q: Tensor, joined: JoinedImages, mask: Tensor | None = None, row: int = 0) -> Tensor:
    """Return what the images add to the output of a cross-attention layer (B, L, C); arguments as in `add_images`."""
    return add_images(torch.zeros_like(q), q, joined, mask, row)


def add_images(
    out: Tensor, q: Tensor, joined: JoinedImages, mask: Tensor | None = None, row: int = 0, pixels: Tensor | None = None
) -> Tensor:
    """Add what images give at a cross-attention layer to `out`, in place.

    Args:
        out: (B, L, C), changed in place.
        q: queries (B, L, C).
        joined: the images.
        mask: where each image acts, 0..1: (n, L), or (n, P) with `pixels`; None for everywhere.
        row: 0 for the images, 1 for the unconditional ones.
        pixels: numbers of the P pixels where the images act, when they do not act elsewhere.
    """
    keys, values = joined.keys[row], joined.values[row]
    if pixels is not None:
        for block in _blocks(len(pixels), keys, LARGEST):
            where = pixels[block]
            for o, chosen in zip(out, q.index_select(1, where), strict=True):
                p = _weights(chosen, keys, joined, None if mask is None else mask[:, block])
                o.index_add_(0, where, torch.bmm(p.transpose(1, 2), values).transpose(0, 1).flatten(1))
        return out
    add = _add if q.device.type == UNFUSED or not _fuses(joined, mask) else _add_fused
    for rows, block in _pieces(out, keys, LARGEST if q.device.type == "cpu" else LARGEST_ELSEWHERE):
        part = None if mask is None else mask[:, block]
        add(out[rows, block].flatten(0, 1), q[rows, block].flatten(0, 1), keys, values, joined, part)
    return out


def add_patches(
    out: Tensor, q: Tensor, joined: JoinedImages, patches: Patches, mask: Tensor | None = None, row: int = 0
) -> Tensor:
    """Add images that each act on pixels of their own to `out`, in place, without a copy for each of them.

    Args:
        out: (B, L, C), changed in place.
        q: queries (B, L, C).
        joined: the images, each with a softmax of its own.
        patches: where they act.
        mask: how strongly at each of these pixels (P,), 0..1; None for fully.
        row: 0 for the images, 1 for the unconditional ones.
    """
    count, heads = joined.lengths[0], joined.keys.shape[1]
    keys, values = (each[row].split(count, 1) for each in (joined.keys, joined.values))
    longest = max(1, LARGEST // (heads * count))
    spans = [
        (image, min(longest, end - start))
        for image, (first, end) in zip(patches.images, pairwise(patches.ends), strict=True)
        for start in range(first, end, longest)
    ]
    sizes = [size for _, size in spans]
    masks = [None] * len(spans) if mask is None else mask.split(sizes)
    for o, given in zip(out, q, strict=True):
        chosen = given.index_select(0, patches.pixels)
        found = torch.zeros_like(chosen)
        seen, added = _by_head(chosen, heads).transpose(1, 2).split(sizes, 2), _by_head(found, heads).split(sizes, 1)
        for (image, _), x, y, weight in zip(spans, seen, added, masks, strict=True):
            p = torch.bmm(keys[image], x).softmax(1)
            if weight is not None:
                p.mul_(weight)
            y.baddbmm_(p.transpose(1, 2), values[image])
        o.index_add_(0, patches.pixels, found)
    return out


def _pieces(out: Tensor, keys: Tensor, largest: int) -> Iterator[tuple[slice, slice]]:
    """Cut (B, L, C) into rows and pixels with at most `largest` products with keys (H, N, d)."""
    each = out.shape[1] * keys[..., 0].numel()
    # Rows of a part of an image are not contiguous, and only one of them at a time is a view.
    together = max(1, largest // max(1, each)) if out.is_contiguous() else 1
    for first in range(0, len(out), together):
        rows = slice(first, first + together)
        if each <= largest:
            yield rows, slice(None)
        else:
            yield from ((rows, block) for block in _blocks(out.shape[1], keys, largest))


def _blocks(pixels: int, keys: Tensor, largest: int) -> list[slice]:
    """Cut pixels into slices of at most `largest` products with keys (H, N, d)."""
    length = max(1, largest // keys[..., 0].numel())
    return [slice(start, start + length) for start in range(0, pixels, length)]


def _by_head(pixels: Tensor, heads: int) -> Tensor:
    """View (P, C) as (H, P, d); never a copy, as results are added in place."""
    return pixels.view(len(pixels), heads, -1).transpose(0, 1)


def _add(out: Tensor, q: Tensor, keys: Tensor, values: Tensor, joined: JoinedImages, mask: Tensor | None) -> None:
    """Add to pixels (P, C) in place; mask: (n, l), where P is l pixels of some rows."""
    p = _weights(q, keys, joined, mask)
    _by_head(out, len(keys)).baddbmm_(p.transpose(1, 2), values)


def _weights(q: Tensor, keys: Tensor, joined: JoinedImages, mask: Tensor | None) -> Tensor:
    """Return the weights (H, N, P) of the values for queries (P, C)."""
    logits = torch.bmm(keys, _by_head(q, len(keys)).transpose(1, 2))
    heads, tokens, pixels = logits.shape
    images = len(joined.lengths)
    if joined.apart:
        p = logits.view(heads, images, -1, pixels).softmax(dim=2)
        if mask is not None:
            p.view(*p.shape[:3], -1, mask.shape[1]).mul_(mask[:, None, None])
        return p.view(heads, tokens, pixels)
    if joined.share is None:
        p = logits.softmax(dim=1)
        if mask is not None:
            p.view(heads, tokens, -1, mask.shape[1]).mul_(_per_token(mask, joined.lengths)[:, None])
        return p
    shares = joined.share[:, None] if mask is None else joined.share[:, None] * mask
    bias = _per_token(shares.log().clamp(min=NEVER), joined.lengths)[:, None]
    wide = logits.view(heads, tokens, -1, pixels if mask is None else mask.shape[1])
    return (wide + bias).softmax(dim=1).mul_(shares.amax(dim=0)).view(heads, tokens, pixels)


def _per_token(images: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Repeat rows (n, l) of images for each of their tokens: (N, l)."""
    if len(set(lengths)) == 1:
        return images.repeat_interleave(lengths[0], dim=0)
    return torch.cat([images[i : i + 1].expand(length, -1) for i, length in enumerate(lengths)])


def _fuses(joined: JoinedImages, mask: Tensor | None) -> bool:
    """Return whether fused attention serves: it moves less than the probabilities of its softmax would.

    Weights that differ from pixel to pixel within a softmax are beyond it.
    """
    window = joined.lengths[0] if joined.apart else sum(joined.lengths)
    return window > joined.keys.shape[-1] and (mask is None or joined.apart)


def _add_fused(out: Tensor, q: Tensor, keys: Tensor, values: Tensor, joined: JoinedImages, mask: Tensor | None) -> None:
    """Do what `_add` does, with `scaled_dot_product_attention` for all images at once."""
    images = len(joined.lengths) if joined.apart else 1
    k, v = (tensor.unflatten(1, (images, -1)).transpose(0, 1) for tensor in (keys, values))
    queries = _by_head(q, len(keys)).expand(images, -1, -1, -1)
    bias = None if joined.share is None else _per_token(joined.share.log()[:, None], joined.lengths).T
    found = F.scaled_dot_product_attention(queries, k, v, bias, scale=1.0)
    if mask is not None:
        found.view(*found.shape[:2], -1, mask.shape[1], found.shape[3]).mul_(mask[:, None, None, :, None])
    total = found.sum(0) if joined.apart else found[0]
    _by_head(out, len(keys)).add_(total, alpha=max(joined.strength) if joined.strength else 1)
