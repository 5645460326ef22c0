"""Images in other sizes (drop-in replacement for `comfy.utils.common_upscale`)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

UPSCALE_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]


def resize(image: Tensor, width: int, height: int, method: str, crop: str = "disabled") -> Tensor:
    """Return images (B, H, W, C) in another size.

    Args:
        method: one of `UPSCALE_METHODS`; lanczos works in 8 bits.
        crop: "center" cuts the longer side to the new proportions first, "disabled" squeezes.
    """
    samples = image.movedim(-1, 1)
    samples = crop_to_aspect(samples, width / height) if crop == "center" else samples
    if method == "lanczos":
        return torch.stack([_lanczos(sample, width, height) for sample in samples]).movedim(1, -1)
    return F.interpolate(samples, size=(height, width), mode=method).movedim(1, -1)


def crop_to_aspect(samples: Tensor, aspect: float) -> Tensor:
    """Return the middle of (B, C, H, W) with the proportion width / height."""
    height, width = samples.shape[2:]
    x = y = 0
    if width / height > aspect:
        x = round((width - width * (aspect / (width / height))) / 2)
    elif width / height < aspect:
        y = round((height - height * ((width / height) / aspect)) / 2)
    return samples[:, :, y : height - y, x : width - x]


def _lanczos(sample: Tensor, width: int, height: int) -> Tensor:
    from PIL import Image

    pixels = (255.0 * sample.movedim(0, -1).float().cpu()).clamp(0, 255).byte().numpy()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    resized = np.array(image.resize((width, height), Image.Resampling.LANCZOS)).astype(np.float32) / 255.0
    return torch.from_numpy(resized).reshape(height, width, -1).movedim(-1, 0)
