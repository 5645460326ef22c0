"""Images in requests: data URLs and base64, bounded; nothing is ever fetched."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ....files.reading import open_file
from ....host.errors import GraphError, shown, without_secrets

MAX_BYTES = 32 * 2**20
"""Of one image."""
MAX_PIXELS = 2**26
"""Of all frames of one image."""
MAX_IMAGES = 128
"""Of one request."""
FORMATS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
"""Suffixes of the files, by Pillow's names of the formats."""
_DATA_URL = re.compile(r"data:[\w/+.;=-]*;base64,", re.IGNORECASE)
# Shorter text is the name of an image on the service; the smallest image takes more.
_SHORTEST = 60


@dataclass
class RequestImages:
    """The images of one request.

    Attributes:
        files: what the caller says that names in the request stand for.
        found: the images' bytes by their file names, to be written to the input folder.
        read: how many were read.
    """

    files: Mapping[str, Path]
    found: dict[str, bytes] = field(default_factory=dict)
    read: int = 0

    def __call__(self, parameter: str, value: str) -> str:
        """Return the file name of an image; the same image has the same name.

        Raises:
            GraphError: it is no image, too large, one too many, or a name that `files` does not have.
        """
        self.read += 1
        if self.read > MAX_IMAGES:
            raise GraphError([f"{parameter}: found more than {MAX_IMAGES} images; expected fewer"])
        content, suffix = _still(parameter, self._read(parameter, value))
        name = f"tessera-{hashlib.sha256(content).hexdigest()[:16]}.{suffix}"
        self.found[name] = content
        return name

    def _read(self, parameter: str, value: str) -> bytes:
        if value in self.files:
            return _read_file(parameter, self.files[value])
        prefix = _DATA_URL.match(value)
        text = value[prefix.end() :] if prefix else value
        if len(text) * 3 // 4 > MAX_BYTES:
            raise GraphError([f"{parameter}: found an image of more than {MAX_BYTES} bytes; expected a smaller one"])
        try:
            if not prefix and len(text) < _SHORTEST:
                raise binascii.Error("too short")
            return _decoded(text)
        except ValueError:
            told = without_secrets(value)
            name = "NAME" if len(value) >= _SHORTEST else value if told == value else "LINK"
            line = f"{parameter}: found {shown(told)}, and nothing is fetched; expected base64, or --image {name}=FILE"
            raise GraphError([line]) from None


def _decoded(text: str) -> bytes:
    """Return the bytes of base64 of either alphabet, with or without padding.

    Raises:
        ValueError: it is none.
    """
    text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _read_file(parameter: str, path: Path) -> bytes:
    try:
        with open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise GraphError([f"{parameter}: {path}: {error.strerror or error}; expected an image"]) from error
    if len(content) > MAX_BYTES:
        raise GraphError([f"{parameter}: {path} has more than {MAX_BYTES} bytes; expected a smaller image"])
    return content


def _still(parameter: str, content: bytes) -> tuple[bytes, str]:
    """Return an image and the suffix of its format; of several frames, the first as PNG.

    It is read whole once: a damaged one is refused here and not in the run.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=list(FORMATS)) as image:
                frames = getattr(image, "n_frames", 1)
                if image.width * image.height * frames > MAX_PIXELS:
                    found = image.width * image.height * frames
                    line = f"{parameter}: found {found} pixels; expected at most {MAX_PIXELS}; make it smaller"
                    raise GraphError([line])
                image.load()
                if frames == 1:
                    return content, FORMATS[image.format or "PNG"]
                first = io.BytesIO()
                ImageOps.exif_transpose(image).save(first, "PNG")
                return first.getvalue(), "png"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise GraphError([f"{parameter}: found too many pixels; expected at most {MAX_PIXELS}"]) from None
    except UnidentifiedImageError:
        raise GraphError([f"{parameter}: no readable image; expected {', '.join(FORMATS)}"]) from None
    except (OSError, SyntaxError, ValueError) as error:
        line = f"{parameter}: no readable image ({error}); expected {', '.join(FORMATS)}"
        raise GraphError([line]) from None
