"""Images from files, as ComfyUI's LoadImage reads them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 178_956_970
"""Of all frames of a file together; as floats they take 2 GB."""

EMPTY_MASK = (64, 64)
"""The mask of an image without transparency."""


def load_image(path: str | Path) -> tuple[Tensor, Tensor]:
    """Return the frames of an image file that are as large as the first, turned as its EXIF says.

    Returns:
        (N, H, W, 3) in 0..1, and the transparency (N, H, W), 1 where nothing is to be seen; (N, 64, 64) zeros when the
        file has none.

    Raises:
        ValueError: the file is not an image, is cut off, or is too large.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    try:
        # The size is checked below; Pillow's warning about it would only be noise.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_size(path, image)
                frames = _frames(image)
    except Image.DecompressionBombError:
        raise ValueError(f"{path.name} has more than {2 * MAX_PIXELS} pixels, expected at most {MAX_PIXELS}") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path.name} is no image that Pillow can read; use PNG, JPEG or WebP") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{path.name} is damaged ({error}); save it again") from None
    return torch.stack([rgb for rgb, _ in frames]), torch.stack([mask for _, mask in frames])


def _check_size(path: Path, image: Image.Image) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames * image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{path.name} has {frames} x {image.width} x {image.height} pixels, expected at most {MAX_PIXELS}"
        )


def _frames(image: Image.Image) -> list[tuple[Tensor, Tensor]]:
    from PIL import ImageOps, ImageSequence

    turned = (ImageOps.exif_transpose(frame) for frame in ImageSequence.Iterator(image))
    frames = [_tensors(frame) for frame in turned]
    return [frame for frame in frames if frame[0].shape == frames[0][0].shape]


def _tensors(frame: Image.Image) -> tuple[Tensor, Tensor]:
    if frame.mode.startswith("I"):
        grey = torch.from_numpy(np.asarray(frame).astype(np.float32)) / 65535.0
        return grey[..., None].expand(-1, -1, 3).clamp(0, 1), torch.zeros(EMPTY_MASK)
    rgb = torch.from_numpy(np.array(frame.convert("RGB"))).float() / 255.0
    if "A" not in frame.getbands() and frame.mode != "P":
        return rgb, torch.zeros(EMPTY_MASK)
    alpha = np.array(frame.convert("RGBA").getchannel("A"))
    return rgb, 1.0 - torch.from_numpy(alpha).float() / 255.0
