"""Images from files, as ComfyUI's LoadImage reads them."""

from __future__ import annotations

import logging
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ...files.reading import open_file

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

MAX_BYTES = 2**30
"""Of all frames of a file together as tensors of floats: 89 million pixels, or 67 with transparency.

Decoding takes up to the same again."""

MAX_SIDE = 2**16
"""Longest side in pixels, four times that of ComfyUI's nodes. Of an image of one column, every pixel is a row."""

MAX_FRAMES = 10_000

FEW_BYTES = 2**26
"""Bytes of a frame that every machine has room for."""

EMPTY_MASK = (64, 64)
"""The mask of an image without transparency."""

FORMATS = """
    AVIF BMP DDS DIB GIF ICO JPEG JPEG2000 MPO PCX PNG PPM QOI SGI TGA TIFF WEBP
"""
"""Formats of images of pixels. Of Pillow's others, some start programs (EPS) or are drawn by the system (WMF)."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"eXIf"}
"""Chunks of a PNG that its pixels depend on."""

_tolerance = threading.Lock()
"""Held while Pillow reads damaged images, since it has one switch for the process."""


@dataclass(frozen=True)
class _Frame:
    """A decoded frame: (H, W, 3) bytes or (H, W) of 16 bits, and its opacity (H, W) where it has any."""

    pixels: np.ndarray
    opacity: np.ndarray | None

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.pixels.shape[:2]
        return height, width


def load_image(path: str | Path) -> tuple[Tensor, Tensor]:
    """Return the frames of an image file that are as large as the first, turned as its EXIF says.

    Of a damaged image, what can be read is returned, and the log says so.

    Returns:
        (N, H, W, 3) in 0..1, and the transparency (N, H, W), 1 where nothing is to be seen; (N, 64, 64) zeros when no
        frame has any.

    Raises:
        ValueError: the file is not an image, nothing of it can be read, or it is too large.
        OSError: it cannot be opened, or is not a file.
    """
    path = Path(path)
    try:
        frames = _read(path)
    except _TooLargeError:
        raise
    except ValueError as strict:
        with _tolerant():
            frames = _read(path, tolerant=True)
        log.warning("%s; what can be read of it is used", strict)
    return _tensors(frames)


class _TooLargeError(ValueError):
    pass


def _read(path: Path, tolerant: bool = False) -> list[_Frame]:
    """Decode the frames of a file.

    Args:
        tolerant: whether a PNG's profile, texts and the like, which may be what is damaged, are left out.

    Raises:
        ValueError: it is not an image, damaged or too large.
    """
    from PIL import Image, UnidentifiedImageError

    formats = readable_formats()
    with open_file(path) as file:
        try:
            # The size is checked below; Pillow's warning about it would only be noise.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with _opened(_pixels_of_png(file) if tolerant else file, formats) as image:
                    return _decoded(path.name, image)
        except (_TooLargeError, MemoryError):
            raise
        except Image.DecompressionBombError:
            raise _TooLargeError(f"{path.name} has too many pixels; expected {MAX_BYTES // 12} at most") from None
        except UnidentifiedImageError:
            raise ValueError(f"{path.name} is no image that Pillow can read; use PNG, JPEG or WebP") from None
        # Readers of formats raise whatever damaged bytes lead them to, such as IndexError or struct.error.
        except Exception as error:
            detail = str(error) or type(error).__name__
            raise ValueError(f"{path.name} is damaged ({detail}); save it again") from error


def readable_formats() -> list[str]:
    """Return the names of `FORMATS` that the installed Pillow knows."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS.split() if name in Image.OPEN]


@contextmanager
def _of_few_bytes() -> Iterator[None]:
    """Take it for damage that something small needs more memory than there is: a size in it is wrong."""
    try:
        yield
    except MemoryError:
        raise ValueError("a part of it claims to be larger than the memory") from None


def _opened(file: BinaryIO, formats: list[str]) -> Image.Image:
    from PIL import Image

    with _of_few_bytes():
        return Image.open(file, formats=formats)


def _pixels_of_png(file: BinaryIO) -> BinaryIO:
    """Return a PNG with nothing in it but pixels, colours, frames and how it is turned; other files as they are."""
    if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
        file.seek(0)
        return file
    size = os.fstat(file.fileno()).st_size
    kept = BytesIO()
    kept.write(PNG_SIGNATURE)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in PNG_PIXELS:
            kept.write(head + file.read(min(length + 4, size)))
        else:
            file.seek(length + 4, os.SEEK_CUR)
    kept.seek(0)
    return kept


@contextmanager
def _tolerant() -> Iterator[None]:
    """Let Pillow read damaged images as far as it can, as ComfyUI does."""
    from PIL import ImageFile

    with _tolerance:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _decoded(name: str, image: Image.Image) -> list[_Frame]:
    from PIL import ImageOps, ImageSequence

    frames: list[_Frame] = []
    taken = 0
    waiting = ImageSequence.Iterator(image)
    while True:
        with _of_few_bytes():
            frame = next(waiting, None)
        if frame is None:
            return frames
        # Before it is decoded, and of what is not kept too: a small file can have many large frames.
        taken += _bytes(frame)
        _check_size(name, frame, len(frames), taken)
        with _of_few_bytes() if _bytes(frame) < FEW_BYTES else nullcontext():
            turned = _frame(ImageOps.exif_transpose(frame))
        if not frames or turned.size == frames[0].size:
            frames.append(turned)


def _bytes(frame: Image.Image) -> int:
    """Return the bytes of a frame's tensors."""
    pixels = frame.width * frame.height
    return pixels * (16 if _has_opacity(frame) else 12) + EMPTY_MASK[0] * EMPTY_MASK[1] * 4


def _has_opacity(frame: Image.Image) -> bool:
    # A PNG without an alpha channel may name one colour that is transparent.
    return "A" in frame.getbands() or frame.mode == "P" or "transparency" in frame.info


def _check_size(name: str, frame: Image.Image, count: int, taken: int) -> None:
    if max(frame.size) > MAX_SIDE:
        found = f"{frame.width} x {frame.height} pixels, expected at most {MAX_SIDE} a side"
    elif taken > MAX_BYTES:
        found = (
            f"{count + 1} x {frame.width} x {frame.height} pixels or more, expected at most {MAX_BYTES // 12} in all"
        )
    elif count >= MAX_FRAMES:
        found = f"more than {MAX_FRAMES} frames"
    else:
        return
    raise _TooLargeError(f"{name} has {found}; make it smaller")


def _frame(frame: Image.Image) -> _Frame:
    if frame.mode.startswith("I"):
        return _Frame(np.asarray(frame), None)
    opacity = np.array(frame.convert("RGBA").getchannel("A")) if _has_opacity(frame) else None
    return _Frame(np.array(frame.convert("RGB")), opacity)


def _tensors(frames: list[_Frame]) -> tuple[Tensor, Tensor]:
    """Return frames as images and masks; `frames` is emptied, since both together could fill the memory."""
    height, width = frames[0].size
    count = len(frames)
    images = torch.empty(count, height, width, 3)
    has_opacity = any(frame.opacity is not None for frame in frames)
    mask = torch.zeros(count, *((height, width) if has_opacity else EMPTY_MASK))
    for index in reversed(range(count)):
        frame = frames.pop()
        if frame.pixels.ndim == 2:
            grey = torch.from_numpy(frame.pixels.astype(np.float32)).div_(65535.0).clamp_(0, 1)
            images[index] = grey[..., None]
        else:
            images[index].copy_(torch.from_numpy(frame.pixels)).div_(255.0)
        if frame.opacity is not None:
            mask[index].copy_(torch.from_numpy(frame.opacity)).div_(-255.0).add_(1.0)
    return images, mask
