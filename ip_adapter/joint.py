"""Attention of pixels to themselves and to image tokens in one softmax, as InstantX trained it for SD 3.5.

With queries Q, keys and values K_0, V_0 of the pixels and K_i, V_i, weights s_i and masks m_i(l) of image i, Z_i the
sum of exponentials over its tokens, A_i their attention and r_i = Z_i / sum_j Z_j:

* sum:    sum_i s_i m_i (Z_0 A_0 + Z_i A_i) / (Z_0 + Z_i), what the adapter gives for each image
* concat: sum_i s_i m_i r_i (Z_0 A_0 + sum_j Z_j A_i) / (Z_0 + sum_j Z_j), one softmax over the tokens of all images
* share:  with w_i = s_i m_i / S and S the largest s_i m_i, S (Z_0 A_0 + sum_i w_i Z_i A_i) / (Z_0 + sum_i w_i Z_i)

With one image all are the same. For several, attention runs once: values have two channels more, whose outputs are the
shares of the pixels and of all images, so that the shares of each image follow from its own tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..patching.attention import Attention
from .attend import take

MORE = 8
"""Channels that are added to those of a head, of which two are used: fused attention takes multiples of 8."""

LARGEST = 2**27
"""Most probabilities of image tokens at a time: 256 MB in half precision."""

TINY = 1e-6
"""Smallest share that is divided by."""


@dataclass(frozen=True, eq=False)
class JointImages:
    """Keys and values of images at one block, at one noise level; row 0 is the images, row 1 the unconditional ones.

    Attributes:
        keys: (2, H, N, d), normed.
        values: (2, H, N, d).
        lengths: tokens of each image; they sum to N.
        weights: of each image.
        tensor: the weights (n,) on the device.
        combine: one of `attend.COMBINES`.
    """

    keys: Tensor
    values: Tensor
    lengths: tuple[int, ...]
    weights: tuple[float, ...]
    tensor: Tensor
    combine: str

    @property
    def alike(self) -> bool:
        """Whether one attention to the tokens of all images, times one weight, is the result."""
        return len(self.lengths) == 1 or (self.combine != "sum" and len(set(self.weights)) == 1)

    def only(self, image: int) -> JointImages:
        """Return one of the images."""
        ends = [sum(self.lengths[:i]) for i in range(len(self.lengths) + 1)]
        keys, values = (take(each, 2, [image], ends) for each in (self.keys, self.values))
        one = slice(image, image + 1)
        return replace(
            self,
            keys=keys,
            values=values,
            lengths=self.lengths[one],
            weights=self.weights[one],
            tensor=self.tensor[one],
        )


def attend_jointly(
    attention: Attention, q: Tensor, k: Tensor, v: Tensor, images: JointImages, mask: Tensor | None, row: int
) -> Tensor:
    """Return what images add to the attention of pixels (B, L, C).

    Args:
        attention: a host's `optimized_attention`.
        q: queries of the pixels (B, H, L, d), normed as the adapter has it, as are the keys.
        k: their keys (B, H, L, d).
        v: their values (B, H, L, d).
        images: the images.
        mask: where each image acts (n, L), 0..1; None for everywhere.
        row: 0 for the images, 1 for the unconditional ones.
    """
    rows = len(q)
    keys, values = (each[row].expand(rows, -1, -1, -1) for each in (images.keys, images.values))
    if images.alike and (mask is None or len(mask) == 1):
        both = torch.cat([k, keys], 2), torch.cat([v, values], 2)
        out = attention(q, *both, q.shape[1], skip_reshape=True) * images.weights[0]
        return out if mask is None else out * mask[0, :, None]
    own, pixels, others = _with_shares(attention, q, k, v, keys, values)
    strength = images.tensor.to(q)
    length = max(1, LARGEST // (rows * keys.shape[1] * keys.shape[2]))
    parts = []
    for block in (slice(start, start + length) for start in range(0, q.shape[2], length)):
        logits = q[:, :, block] @ keys.transpose(2, 3) * q.shape[-1] ** -0.5
        each = strength if mask is None else strength * mask[:, block].T.to(q)
        chances, first = _chances(logits.float(), pixels[:, :, block], others[:, :, block], each, images)
        parts.append(first.to(q) * own[:, :, block] + chances.to(q) @ values)
    return torch.cat(parts, 2).transpose(1, 2).flatten(2)


def _with_shares(
    attention: Attention, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend to pixels and all images at once: return what pixels give, their share, and that of the images."""
    size = q.shape[-1]
    marks = F.pad(v.new_ones(*v.shape[:3], 1), (0, MORE - 1)), F.pad(v.new_ones(*values.shape[:3], 1), (1, MORE - 2))
    given = torch.cat([torch.cat([v, marks[0]], 3), torch.cat([torch.zeros_like(values), marks[1]], 3)], 2)
    # Attention divides by the root of the size that it sees.
    queries = F.pad(q * ((size + MORE) / size) ** 0.5, (0, MORE))
    out = attention(queries, F.pad(torch.cat([k, keys], 2), (0, MORE)), given, q.shape[1], skip_reshape=True)
    out = out.unflatten(2, (q.shape[1], -1)).transpose(1, 2)
    return out[..., :size], out[..., size : size + 1].float(), out[..., size + 1 : size + 2].float()


def _chances(
    logits: Tensor, pixels: Tensor, others: Tensor, each: Tensor, images: JointImages
) -> tuple[Tensor, Tensor]:
    """Return the weights of the values of all tokens (B, H, l, N), and that of what the pixels give (B, H, l, 1).

    Args:
        logits: of the tokens (B, H, l, N).
        pixels: share of the pixels (B, H, l, 1).
        others: share of all images (B, H, l, 1).
        each: weight of each image, (n,) or (l, n).
        images: the images.
    """
    sizes = _sizes(logits, images.lengths)
    ratios = sizes.softmax(-1)
    each = each.to(ratios)
    if images.combine == "sum":
        own = each / (pixels + others * ratios).clamp(min=TINY)
        weights, first = own * others * ratios, own.sum(-1, keepdim=True)
    elif images.combine == "concat":
        weights, first = each * others * ratios, (each * ratios).sum(-1, keepdim=True)
    else:
        strength = each.amax(-1, keepdim=True)
        parts = each / strength.clamp(min=TINY) * others * ratios
        first = strength / (pixels + parts.sum(-1, keepdim=True)).clamp(min=TINY)
        weights = parts * first
    return (logits - _spread(sizes, images.lengths)).exp() * _spread(weights, images.lengths), first


def _sizes(logits: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the logarithms of the sums of exponentials of each image: (..., N) to (..., n)."""
    if len(set(lengths)) == 1:
        return logits.unflatten(-1, (len(lengths), -1)).logsumexp(-1)
    return torch.stack([part.logsumexp(-1) for part in logits.split(list(lengths), -1)], -1)


def _spread(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Repeat the value of each image for its tokens: (..., n) to (..., N)."""
    if len(set(lengths)) == 1:
        return values.repeat_interleave(lengths[0], -1)
    return torch.cat([values[..., i : i + 1].expand(*values.shape[:-1], n) for i, n in enumerate(lengths)], -1)
