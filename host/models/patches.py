"""Latents as the tokens of transformers: squares of 2 x 2 with their positions, and reference images behind them."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from .references import places

PATCH = 2
"""Latents along the side of one token of Flux."""


def patchify(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens (B, N, 4 C) of 2 x 2 latents and their positions (N, 3).

    Odd sizes are first wrapped to even ones.
    """
    height, width = x.shape[2:]
    if height % PATCH or width % PATCH:
        x = F.pad(x, (0, width % PATCH, 0, height % PATCH), mode="circular")
    h, w = x.shape[2] // PATCH, x.shape[3] // PATCH
    tokens = rearrange(x, "b c (h y) (w x) -> b (h w) (c y x)", y=PATCH, x=PATCH)
    ids = torch.zeros(h, w, 3, device=x.device)
    ids[..., 1] += torch.arange(h, device=x.device)[:, None]
    ids[..., 2] += torch.arange(w, device=x.device)[None, :]
    return tokens, ids.reshape(h * w, 3)


def with_references(
    tokens: Tensor, ids: Tensor, x: Tensor, references: list[Tensor], method: str
) -> tuple[Tensor, Tensor]:
    """Return tokens (B, N, 4 C) and positions (N, 3) of an image with those of references (B, C, H, W) behind them."""
    height, width = (-(-side // PATCH) * PATCH for side in x.shape[2:])
    where = places([(each.shape[2], each.shape[3]) for each in references], height, width, method)
    for reference, (index, top, left) in zip(references, where, strict=True):
        more, positions = patchify(reference.to(x))
        shift = torch.tensor([index, (top + 1) // PATCH, (left + 1) // PATCH], device=ids.device)
        tokens, ids = torch.cat([tokens, more], 1), torch.cat([ids, positions + shift])
    return tokens, ids


def unpatchify(tokens: Tensor, height: int, width: int) -> Tensor:
    """Return latents (B, C, height, width) of tokens (B, N, 4 C)."""
    x = rearrange(tokens, "b (h w) (c y x) -> b c (h y) (w x)", h=-(-height // PATCH), y=PATCH, x=PATCH)
    return x[:, :, :height, :width]
