"""Which pictures diffusers' safety checker flags, and what hides them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..weights.files import check_folder

# What is left of a hidden picture: so many cells along its shorter side.
CELLS = 8
SAID = "sensitive content"


def covered(picture: Tensor, method: str) -> Tensor:
    """A hidden picture in its size. picture: (3, H, W) in 0..1; method: one of `COVERS`."""
    return COVERS[method](picture)


def _coarse(picture: Tensor, method: str) -> Tensor:
    height, width = picture.shape[1:]
    cell = max(2, -(-min(height, width) // CELLS))
    cells = F.interpolate(picture[None], size=(-(-height // cell), -(-width // cell)), mode="area")
    return F.interpolate(cells, size=(height, width), mode=method)[0].clamp(0, 1)


def _text(picture: Tensor) -> Tensor:
    from PIL import Image, ImageDraw, ImageFont

    height, width = picture.shape[1:]
    blank = Image.new("RGB", (width, height))
    font = ImageFont.load_default(max(6, width // len(SAID)))
    ImageDraw.Draw(blank).text((width / 2, height / 2), SAID, "white", font, "mm")
    return torch.from_numpy(np.asarray(blank) / np.float32(255)).movedim(-1, 0).to(picture)


COVERS: dict[str, Callable[[Tensor], Tensor]] = {
    "text": _text,
    "black": torch.zeros_like,
    "blur": lambda picture: _coarse(picture, "bilinear"),
    "pixelate": lambda picture: _coarse(picture, "nearest"),
}


def unsafe(folder: Path, pictures: Tensor) -> list[bool]:
    """Which pictures a checker flags.

    Args:
        folder: of diffusers' safety checker: `config.json`, `model.safetensors`, `preprocessor_config.json`.
        pictures: (B, H, W, 3) in 0..1.

    Raises:
        ValueError: the folder holds no safety checker.
    """
    checker, prepare = _load(folder)
    bytes_ = (255 * pictures[..., :3]).round().clamp(0, 255).byte().cpu().numpy()
    pixels = prepare(list(bytes_), return_tensors="pt").pixel_values
    with torch.no_grad():
        # Multiplies the second argument, one number a picture, by 0 where it flags.
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
        with _quiet():
            checker: Any = StableDiffusionSafetyChecker
            found = checker.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            return found, CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        expected = "expected config.json, model.safetensors and preprocessor_config.json of a safety checker"
        raise ValueError(f"{folder.name}: {str(error).splitlines()[0]}; {expected}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars, which are not those of the node."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
