"""What FreeU and self-attention guidance do to features and predictions of a UNet."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BLUR_SIDE = 9
"""Cells along the side of a Gaussian kernel."""

ATTENDED = 1.0
"""Cells that get more attention than this, which is the mean, are blurred."""


def scaled_low_frequencies(x: Tensor, scale: float) -> Tensor:
    """Return features (B, C, H, W) with the lowest frequencies multiplied."""
    spectrum = torch.fft.fftshift(torch.fft.fftn(x.float(), dim=(-2, -1)), dim=(-2, -1))
    rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
    spectrum[..., rows - 1 : rows + 1, columns - 1 : columns + 1] *= scale
    return torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=(-2, -1)), dim=(-2, -1)).real.to(x.dtype)


def weighed_backbone(hidden: Tensor, scale: float, by_mean: bool) -> Tensor:
    """Return features (B, C, H, W), half of whose channels are multiplied; `by_mean`: most where their mean is high."""
    factor: Tensor | float = scale
    if by_mean:
        mean = hidden.mean(1, keepdim=True)
        low, high = (mean.flatten(1).aminmax(dim=1, keepdim=True)[i][..., None, None] for i in (0, 1))
        factor = (scale - 1.0) * (mean - low) / (high - low) + 1.0
    half = hidden.shape[1] // 2
    return torch.cat([hidden[:, :half] * factor, hidden[:, half:]], 1)


def received_attention(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """Return how much attention each cell gets (B, L) from all others, in the mean of heads; its mean is 1."""
    q, k = (each.unflatten(-1, (heads, -1)).transpose(1, 2).float() for each in (q, k))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return scores.softmax(-1).mean(1).sum(1)


def blurred_where_attended(x: Tensor, attention: Tensor, sigma: float) -> Tensor:
    """Return predictions (B, C, H, W), blurred where attention (B, L) on a coarser grid is above its mean."""
    rows = _rows(attention.shape[1], *x.shape[2:])
    mask = (attention > ATTENDED).to(x).reshape(len(x), 1, rows, -1)
    mask = F.interpolate(mask, x.shape[2:])
    return _blurred(x, sigma) * mask + x * (1 - mask)


def _rows(cells: int, height: int, width: int) -> int:
    """Return the rows of a grid of so many cells that has the proportions nearest to those of an image."""
    wanted = round(math.sqrt(height / width * cells))
    for distance in range(math.floor(math.sqrt(cells) / 2)):
        for rows in (wanted + distance, max(1, wanted - distance)):
            if cells % rows == 0:
                return rows
    raise ValueError(f"{cells} cells of attention are no grid for latents of {width} x {height}")


def _blurred(x: Tensor, sigma: float) -> Tensor:
    places = torch.arange(BLUR_SIDE, device=x.device, dtype=x.dtype) - BLUR_SIDE // 2
    weights = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = torch.outer(weights / weights.sum(), weights / weights.sum()).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(x, [BLUR_SIDE // 2] * 4, mode="reflect"), kernel, groups=x.shape[1])
