"""Small images of what is being denoised (drop-in replacement for `latent_preview`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

    from ..models.latent_formats import LatentFormat

MAX_PREVIEW_RESOLUTION = 512
"""Longest side of a preview in pixels."""

METHODS = {"none": False, "auto": True, "latent2rgb": True, "taesd": True}
"""ComfyUI's methods, and whether each shows something; there is one way here, a linear map from latents to colours."""

_shows = False


def choose(method: Any = None) -> None:
    """Choose what the next run shows; nothing for any other name than ComfyUI's, such as its "default"."""
    global _shows
    _shows = isinstance(method, str) and METHODS.get(method, False)


def preview(x0: Tensor, latent_format: LatentFormat) -> tuple[str, Image.Image, int] | None:
    """Return the format, the image and its longest side for the first of x0 (B, C, H, W), in the denoiser's scale.

    None where nothing is to be shown, or where nobody knows the colours of the latents.
    """
    factors = latent_format.latent_rgb_factors
    if not _shows or factors is None or x0.ndim != 4 or x0.shape[1] != len(factors):
        return None
    from PIL import Image

    weight = torch.tensor(factors, dtype=torch.float32).T
    bias = torch.tensor(latent_format.latent_rgb_factors_bias or [0.0, 0.0, 0.0])
    colours = torch.nn.functional.linear(x0[0].movedim(0, -1).to("cpu", torch.float32), weight, bias)
    pixels = ((colours + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8)
    return "JPEG", Image.fromarray(pixels.numpy()), MAX_PREVIEW_RESOLUTION
