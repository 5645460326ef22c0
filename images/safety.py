"""Images that diffusers' safety checker flags, and ways to hide them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..weights.files import check_folder, without_progress_bars
from .control_maps import rgb

CELLS = 8
"""Cells along the shorter side of an image hidden by blur or pixelation."""
SAID = "sensitive content"


def covered(image: Tensor, method: str) -> Tensor:
    """Return an image (3, H, W), 0..1, hidden by a method of `COVERS`, in its own size."""
    return COVERS[method](image)


def hidden(images: Tensor, flags: Sequence[bool], method: str) -> Tensor:
    """Return images (B, H, W, C) of which those that are flagged are `covered`, their transparency as well.

    Returns:
        (B, H, W, 4) where the images have transparency, else (B, H, W, 3).
    """
    colours = torch.stack(
        [
            covered(each.movedim(-1, 0), method).movedim(0, -1) if flag else each
            for each, flag in zip(rgb(images), flags, strict=True)
        ]
    )
    if images.shape[-1] < 4:
        return colours
    opaque = torch.tensor(flags, device=images.device)[:, None, None, None]
    return torch.cat((colours, images[..., 3:4].masked_fill(opaque, 1.0)), -1)


def _coarse(image: Tensor, method: str) -> Tensor:
    height, width = image.shape[1:]
    cell = max(2, -(-min(height, width) // CELLS))
    cells = F.interpolate(image[None], size=(-(-height // cell), -(-width // cell)), mode="area")
    return F.interpolate(cells, size=(height, width), mode=method)[0].clamp(0, 1)


def _text(image: Tensor) -> Tensor:
    from PIL import Image, ImageDraw, ImageFont

    height, width = image.shape[1:]
    blank = Image.new("RGB", (width, height))
    font = ImageFont.load_default(max(6, width // len(SAID)))
    ImageDraw.Draw(blank).text((width / 2, height / 2), SAID, "white", font, "mm")
    return torch.from_numpy(np.asarray(blank) / np.float32(255)).movedim(-1, 0).to(image)


COVERS: dict[str, Callable[[Tensor], Tensor]] = {
    "text": _text,
    "black": torch.zeros_like,
    "blur": lambda image: _coarse(image, "bilinear"),
    "pixelate": lambda image: _coarse(image, "nearest"),
}


def unsafe(folder: Path, images: Tensor) -> list[bool]:
    """Return which images a checker flags.

    Args:
        folder: of diffusers' safety checker: `config.json`, `model.safetensors`, `preprocessor_config.json`.
        images: (B, H, W, C) in 0..1.

    Raises:
        ValueError: the folder holds no safety checker.
    """
    checker, prepare = _load(folder)
    bytes_ = (255 * rgb(images)).round().clamp(0, 255).byte().cpu().numpy()
    pixels = prepare(list(bytes_), return_tensors="pt").pixel_values
    with torch.no_grad():
        # Multiplies the second argument, one number an image, by 0 where it flags.
        _, flags = checker.forward_onnx(pixels, torch.ones(len(pixels)))
    return flags.tolist()


@lru_cache(maxsize=1)
def _load(folder: Path) -> tuple[Any, Any]:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    try:
        # Works without torchvision, which the other one of newer versions asks for.
        from transformers import CLIPImageProcessorPil as CLIPImageProcessor
    except ImportError:
        from transformers import CLIPImageProcessor
    check_folder(folder)
    try:
        with without_progress_bars():
            checker: Any = StableDiffusionSafetyChecker
            found = checker.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            return found, CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        expected = "expected config.json, model.safetensors and preprocessor_config.json of a safety checker"
        raise ValueError(f"{folder.name}: {str(error).splitlines()[0]}; {expected}") from None
