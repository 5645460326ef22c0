"""Messages to clients, in the bytes and shapes that ComfyUI sends over its WebSocket."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ...host.graph.results import is_plain

if TYPE_CHECKING:
    from PIL import Image

PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4
"""Kinds of binary messages, big-endian in their first four bytes."""

FORMATS = {"JPEG": 1, "PNG": 2}
"""Formats of previews without metadata, big-endian in the four bytes that follow."""

Preview = tuple[str, "Image.Image", "int | None"]
"""Format, image, and the longest side that it may have."""


def encoded(event: str, data: Any) -> str:
    """Return a message as text."""
    return json.dumps({"type": event, "data": jsonable(data)})


def jsonable(value: Any) -> Any:
    """Return a value as every reader of JSON takes it: numbers that JSON has not (infinite, or none) are None."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [jsonable(item) for item in value]
    scalar: Any = value
    return jsonable(scalar.item()) if is_plain(value) else str(value)


def preview_message(preview: Preview) -> bytes:
    """Return a preview as clients without `supports_preview_metadata` take it."""
    return struct.pack(">II", PREVIEW, FORMATS[preview[0]]) + _image_bytes(preview)


def preview_message_with(preview: Preview, metadata: Mapping[str, Any]) -> bytes:
    """Return a preview with what it belongs to."""
    told = json.dumps({**metadata, "image_type": f"image/{preview[0].lower()}"}).encode()
    return struct.pack(">II", PREVIEW_WITH_METADATA, len(told)) + told + _image_bytes(preview)


def _image_bytes(preview: Preview) -> bytes:
    from PIL import Image, ImageOps

    kind, image, longest = preview
    if longest is not None:
        image = ImageOps.contain(image, (longest, longest), Image.Resampling.BILINEAR)
    file = BytesIO()
    image.save(file, kind, quality=95, compress_level=1)
    return file.getvalue()
