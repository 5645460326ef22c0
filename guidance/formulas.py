"""Steering away from a negative prompt: classifier-free guidance, a soft form of it, and guidance inside attention.

A strength of 0 is no guidance; the scale of the literature is 1 + strength.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

TAU, ALPHA = 2.5, 0.25
"""Limit and share of normalized attention guidance that its authors use for Flux (arXiv 2505.21179)."""

SOFTNESS = 0.3
"""Share of the strength that `soft_cfg` applies."""

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""q, k, v (B, H, N, D) and a mask or None to (B, N, H D)."""


def cfg(positive: Tensor, negative: Tensor, strength: float) -> Tensor:
    """Classifier-free guidance, as diffusers' `true_cfg_scale = 1 + strength` (arXiv 2207.12598).

    Args:
        positive: prediction of the image (B, C, H, W).
        negative: likewise, for the negative prompt.
        strength: from 0.

    Examples:
        >>> import torch
        >>> from tessera.guidance import cfg
        >>> cfg(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]), strength=6.5)
        tensor([1.0000, 8.5000])
    """
    return positive + strength * (positive - negative)


def soft_cfg(positive: Tensor, negative: Tensor, strength: float) -> Tensor:
    """Classifier-free guidance that neither brightens nor burns.

    Only what stands at right angles to the positive prediction is added (APG, arXiv 2410.02416), and each sample is
    scaled back to the positive's norm.

    Args:
        positive: prediction of the image (B, C, H, W).
        negative: likewise, for the negative prompt.
        strength: from 0.

    Examples:
        >>> import torch
        >>> from tessera.guidance import soft_cfg
        >>> positive, negative = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
        >>> guided = soft_cfg(positive, negative, strength=4.0)
        >>> bool((guided.norm() <= positive.norm() * 1.0001).all())
        True
    """
    axes, wide = tuple(range(1, positive.ndim)), summable(positive.dtype)
    start, difference = positive.to(wide), positive.to(wide) - negative.to(wide)
    power = start.square().sum(axes, keepdim=True).clamp_min(torch.finfo(wide).tiny)
    across = difference - (difference * start).sum(axes, keepdim=True) / power * start
    guided = start + SOFTNESS * strength * across
    norm = guided.square().sum(axes, keepdim=True).clamp_min(torch.finfo(wide).tiny)
    return (guided * (power / norm).sqrt().clamp_max(1.0)).to(positive.dtype)


def nag(positive: Tensor, negative: Tensor, strength: float, tau: float = TAU, alpha: float = ALPHA) -> Tensor:
    """Normalized attention guidance (arXiv 2505.21179) of attention outputs, with scale 1 + strength.

    Args:
        positive: (..., D), each D a token.
        negative: likewise, for the negative prompt.
        strength: from 0.
        tau: how much longer (L1) than the positive the extrapolation may be.
        alpha: its share in the result, 0..1.

    Returns:
        (..., D); no token is longer than alpha tau + 1 - alpha times the positive one.

    Examples:
        >>> import torch
        >>> from tessera.guidance import nag
        >>> nag(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0]]), strength=4.0)
        tensor([[0.9583, 1.7917]])
    """
    wide = summable(positive.dtype)
    guided = positive + strength * (positive - negative)
    length = positive.abs().sum(-1, keepdim=True, dtype=wide)
    ratio = guided.abs().sum(-1, keepdim=True, dtype=wide) / length.clamp_min(torch.finfo(wide).tiny)
    limited = guided * (tau / ratio.clamp_min(tau)).to(positive.dtype)
    return torch.lerp(positive, limited, alpha)


def summable(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which a norm is summed up: in half precision, the sum of finite values may be infinite."""
    return torch.promote_types(dtype, torch.float32)


class Sequence(NamedTuple):
    """How many tokens of each kind follow each other in a joint attention: negative text, positive text, image."""

    negative: int
    text: int
    image: int

    @property
    def length(self) -> int:
        """All tokens."""
        return sum(self)


def joint_nag(
    attend: Attend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    tokens: Sequence,
    strength: float,
    rows: list[int] | None = None,
) -> Tensor:
    """Attention of Flux over both texts and the image, with `nag` of the image's tokens.

    The positive text and the image see each other and never the negative text. The negative text sees itself and the
    image. The image takes its output from both views; linear layers and norms run once for all.

    Args:
        attend: plain attention.
        q, k, v: (B, H, N, D) with rotary positions applied, in the order of `tokens`.
        mask: for positive text and image alone, (..., 1 or N', 1 or N'), True or 0 where a key is seen.
        strength: of `nag`.
        rows: numbers of the samples to guide, all by default; in others the image's tokens are not changed.

    Returns:
        (B, N, H D).

    Examples:
        >>> import torch
        >>> from torch.nn.functional import scaled_dot_product_attention
        >>> from tessera.guidance import Sequence, joint_nag
        >>> def attend(q, k, v, mask):
        ...     return scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)
        >>> q, k, v = torch.randn(3, 1, 2, 4 + 5 + 16, 8)
        >>> out = joint_nag(attend, q, k, v, None, Sequence(negative=4, text=5, image=16), strength=3.0)
        >>> plain = attend(q[:, :, 4:], k[:, :, 4:], v[:, :, 4:], None)
        >>> out.shape, bool(torch.equal(out[:, 4:9], plain[:, :5]))
        (torch.Size([1, 25, 16]), True)
    """
    first = tokens.negative
    positive = attend(q[:, :, first:], k[:, :, first:], v[:, :, first:], mask)
    mask = negative_mask(mask, tokens, rows)
    if rows is not None:
        q, k, v = (_picked(part, rows) for part in (q, k, v))
    q, k, v = (torch.cat([part[:, :, :first], part[:, :, first + tokens.text :]], 2) for part in (q, k, v))
    negative = attend(q, k, v, mask)
    text, image = positive[:, : tokens.text], positive[:, tokens.text :]
    against, view = negative[:, :first], negative[:, first:]
    if rows is None:
        return torch.cat([against, text, nag(image, view, strength)], 1)
    image = _replaced(image, rows, nag(_picked(image, rows), view, strength))
    nothing = text.new_zeros(len(text), first, text.shape[-1])
    return torch.cat([_replaced(nothing, rows, against), text, image], 1)


def _picked(batch: Tensor, rows: list[int]) -> Tensor:
    """Return some samples of a batch; an index would have to go to the device, for which a GPU waits."""
    return torch.cat([batch[row : row + 1] for row in rows])


def _replaced(batch: Tensor, rows: list[int], samples: Tensor) -> Tensor:
    """Return a batch with other samples in some rows."""
    given = dict(zip(rows, samples.split(1), strict=True))
    return torch.cat([given.get(row, batch[row : row + 1]) for row in range(len(batch))])


def negative_mask(mask: Tensor | None, tokens: Sequence, rows: list[int] | None) -> Tensor | None:
    """Return the mask of negative text and image: the image's part of `mask`, with the negative text all visible."""
    if mask is None:
        return None
    if rows is not None and mask.ndim > 2 and mask.shape[0] > 1:
        mask = _picked(mask, rows)
    for dim in (-2, -1):
        if mask.shape[dim] > 1:
            mask = mask.narrow(dim, tokens.text, tokens.image)
    wide, high = (tokens.negative if mask.shape[dim] > 1 else 0 for dim in (-1, -2))
    return F.pad(mask, (wide, 0, high, 0), value=mask.dtype == torch.bool)
