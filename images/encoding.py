"""Images as files of PNG (of 8 or 16 bits a channel), JPEG and WebP, and as text."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class FileFormat:
    """A kind of image file.

    Attributes:
        suffix: of the file's name.
        media_type: as web servers name it.
    """

    suffix: str
    media_type: str


PNG16 = "png16"
"""PNG with 16 bits a channel."""

FORMATS = {
    "png": FileFormat(".png", "image/png"),
    "jpeg": FileFormat(".jpg", "image/jpeg"),
    "webp": FileFormat(".webp", "image/webp"),
    PNG16: FileFormat(".png", "image/png"),
}
"""Formats by the name that `encode` takes."""

PNG_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's number for greyscale, with transparency, RGB and RGBA, by the count of channels."""

PNG_FILTER_UP = 2
"""Each byte is stored as its difference from the one above it (PNG specification, section 9.2)."""


def encode(image: Tensor, file_format: str, quality: int = 90, texts: Mapping[str, str] | None = None) -> bytes:
    """Return an image as a file.

    Args:
        image: (H, W, C), 0..1: grey or coloured, with transparency or without, which JPEG drops.
        file_format: a key of `FORMATS`.
        quality: 1..100, of JPEG and WebP; WebP at 100 is lossless.
        texts: metadata by keyword, which png16 carries.

    Raises:
        ValueError: the image has values that are not numbers.
    """
    if image.isnan().any():
        raise ValueError("the image has values that are not numbers (NaN); use another precision, model or VAE")
    if file_format == PNG16:
        return _encode_png16(image, texts or {})
    from PIL import Image

    # As ComfyUI does: the byte is cut off, not rounded.
    levels = (255.0 * image.float().cpu()).clamp(0, 255).byte().numpy()
    pixels = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    file = BytesIO()
    options: dict[str, Any] = {"lossless": quality == 100} if file_format == "webp" else {}
    (pixels.convert("RGB") if file_format == "jpeg" else pixels).save(file, file_format, quality=quality, **options)
    return file.getvalue()


def data_url(content: bytes, file_format: str) -> str:
    """Return an image file as a data URL (RFC 2397)."""
    return f"data:{FORMATS[file_format].media_type};base64,{base64.b64encode(content).decode()}"


def _encode_png16(image: Tensor, texts: Mapping[str, str]) -> bytes:
    """Encode by hand: Pillow reads colour images of 16 bits, and does not write them."""
    from PIL.PngImagePlugin import PngInfo, putchunk

    levels = (65535.0 * image.double().cpu()).round().clamp(0, 65535).numpy().astype(">u2")
    height, width, channels = levels.shape
    metadata = PngInfo()
    for keyword, text in texts.items():
        metadata.add_text(keyword, text)
    file = BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    putchunk(file, b"IHDR", struct.pack(">2I5B", width, height, 16, PNG_COLOR_TYPES[channels], 0, 0, 0))
    for chunk in metadata.chunks:
        putchunk(file, *chunk[:2])
    putchunk(file, b"IDAT", zlib.compress(_filtered(levels), 6))
    putchunk(file, b"IEND", b"")
    return file.getvalue()


def _filtered(levels: np.ndarray) -> bytes:
    """Return the rows of (H, W, channels) big-endian levels as PNG stores them: a filter's number, then the bytes."""
    rows = np.ascontiguousarray(rearrange(levels, "height width channels -> height (width channels)")).view(np.uint8)
    differences = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    return np.insert(differences, 0, PNG_FILTER_UP, axis=1).tobytes()
