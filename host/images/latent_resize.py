"""Latents in another size.

Drop-in replacement for what `comfy.utils.common_upscale` does with latents, bislerp included.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .scaling import crop_to_aspect

METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]
CROPS = ["disabled", "center"]
NEARLY_PARALLEL = 1e-5
"""Cosines nearer to 1 or -1 than this have no plane to turn in."""


def resize_latents(latents: Tensor, width: int, height: int, method: str, crop: str = "disabled") -> Tensor:
    """Return latents (B, C, [frames,] H, W) in another size.

    Args:
        width, height: in cells of the latent grid, not in pixels.
        method: one of `METHODS`.
        crop: "center" cuts the longer side to the new proportions first, "disabled" squeezes.
    """
    flat = latents.movedim(1, -3).flatten(0, -4) if latents.ndim > 4 else latents
    flat = crop_to_aspect(flat, width / height) if crop == "center" else flat
    if method == "bislerp":
        resized = bislerp(flat, width, height)
    else:
        resized = F.interpolate(flat, size=(height, width), mode=method)
    if latents.ndim == 4:
        return resized
    between = latents.shape[2:-2]
    return resized.unflatten(0, (latents.shape[0], *between)).movedim(-3, 1)


def bislerp(latents: Tensor, width: int, height: int) -> Tensor:
    """Resize (B, C, H, W) along each axis by turning from one cell's vector of channels to the next one's.

    Linear interpolation shortens the vectors between two cells, which decodes as blur.
    Works in 32 bits at least.
    """
    exact = latents if latents.dtype == torch.float64 else latents.float()
    return _along(_along(exact, -1, width), -2, height).to(latents.dtype)


def _along(latents: Tensor, axis: int, length: int) -> Tensor:
    last = latents.shape[axis] - 1
    places = torch.arange(last + 1, dtype=torch.float32, device=latents.device)
    at = F.interpolate(places[None, None, None], size=(1, length), mode="bilinear").flatten()
    beyond = F.interpolate((places + 1).clamp(max=last)[None, None, None], size=(1, length), mode="bilinear").flatten()
    before = latents.index_select(axis, at.long()).movedim(1, -1)
    after = latents.index_select(axis, beyond.long()).movedim(1, -1)
    share = (at - at.floor()).to(latents.dtype)
    share = share.reshape([-1, 1] if axis == -1 else [-1, 1, 1])
    return _turn(before, after, share).movedim(-1, 1)


def _turn(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Return vectors (..., C) a share of the way from `start` to `end`: spherical in direction, linear in length."""
    lengths = start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True)
    a, b = (torch.where(length > 0, vector / length, 0.0) for vector, length in zip((start, end), lengths, strict=True))
    cosine = (a * b).sum(-1, keepdim=True)
    angle = cosine.acos()
    turned = (((1.0 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()
    turned = turned * (lengths[0] * (1.0 - share) + lengths[1] * share)
    turned = torch.where(cosine > 1 - NEARLY_PARALLEL, start, turned)
    return torch.where(cosine < NEARLY_PARALLEL - 1, start * (1.0 - share) + end * share, turned)
