"""Images that clients send. Nothing else is taken, and nothing too large to open."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ....files.writing import create, replace
from ....host import folder_paths
from ..security import inside, refuse, safe_name

if TYPE_CHECKING:
    from PIL import Image

    Fields = dict[str, str | web.FileField]

routes = web.RouteTableDef()

MAX_PIXELS = 2**27
"""Of an image: 11585 px square. Opened, it takes 0.5 GB."""

SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
}
"""Formats that are taken, and what their names end with."""


@contextmanager
def opened(source: str | BytesIO) -> Iterator[Image.Image]:
    """Open an image.

    Raises:
        web.HTTPBadRequest: it is not one, it is broken, or it is too large.
    """
    from PIL import Image

    try:
        with Image.open(source, formats=list(SUFFIXES)) as image:
            if image.width * image.height > MAX_PIXELS:
                refuse(400, f"the image has {image.width} x {image.height} px; at most {MAX_PIXELS} px can be opened")
            yield image
    except web.HTTPException:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        refuse(400, f"the image cannot be read ({error}); send one of {', '.join(SUFFIXES)}")


@routes.post("/upload/image")
async def upload_image(request: web.Request) -> web.Response:
    """Save an image in the input folder, or in the folder of its `type`, and return its name there."""
    fields = await _fields(request)
    content = _content(fields)
    return await asyncio.to_thread(_save, fields, content)


@routes.post("/upload/mask")
async def upload_mask(request: web.Request) -> web.Response:
    """Save an image with the alpha channel of another one, which was painted over it in the editor."""
    from .files import find

    fields = await _fields(request)
    try:
        original = json.loads(str(fields.get("original_ref")))
        names = [original["filename"], original.get("subfolder") or "", original.get("type")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        refuse(400, "original_ref must be an object with the filename of the image that the mask is for")
    if not all(isinstance(each, (str, type(None))) for each in names):
        refuse(400, "filename, subfolder and type of original_ref must be text")
    path = find(*names)
    if not os.path.isfile(path):
        refuse(400, "the image that the mask is for is not there")
    content = await asyncio.to_thread(_masked, path, _content(fields))
    return await asyncio.to_thread(_save, fields, content)


async def _fields(request: web.Request) -> Fields:
    try:
        return dict(await request.post())  # pyright: ignore[reportReturnType]
    except (ValueError, LookupError, AssertionError, RuntimeError, HttpProcessingError) as error:
        refuse(400, f"the form cannot be read ({' '.join(str(error).split())})")


def _content(fields: Fields) -> bytes:
    image = fields.get("image")
    if not isinstance(image, web.FileField):
        refuse(400, "image must be a file")
    return image.file.read()


def _masked(path: str, mask: bytes) -> bytes:
    """Return a PNG of an image with the alpha channel of a mask; it keeps its texts."""
    from PIL.PngImagePlugin import PngInfo

    with opened(path) as image, opened(BytesIO(mask)) as painted:
        texts = PngInfo()
        for name, text in getattr(image, "text", {}).items():
            texts.add_text(name, text)
        alpha = painted.convert("RGBA").getchannel("A")
        if alpha.size != image.size:
            refuse(400, f"the mask has {alpha.width} x {alpha.height} px; the image {image.width} x {image.height} px")
        masked = image.convert("RGBA")
        masked.putalpha(alpha)
        file = BytesIO()
        masked.save(file, "PNG", compress_level=4, pnginfo=texts)
    return file.getvalue()


def _save(fields: Fields, content: bytes) -> web.Response:
    kind, subfolder = str(fields.get("type") or "input"), str(fields.get("subfolder") or "")
    root = folder_paths.get_directory_by_type(kind)
    if root is None:
        refuse(400, "type must be input, output or temp")
    subfolder = os.path.normpath(subfolder) if subfolder else ""
    folder = inside(root, subfolder)
    image: Any = fields["image"]
    name = _fitting(safe_name(image.filename or ""), content)
    try:
        os.makedirs(folder, exist_ok=True)
        if str(fields.get("overwrite", "")).lower() in ("true", "1"):
            replace(inside(folder, name), content)
        else:
            name = _free_name(folder, name, content)
    except OSError as error:
        refuse(400, f"the image cannot be saved ({error.strerror or error})")
    return web.json_response({"name": name, "subfolder": subfolder, "type": kind})


def _fitting(name: str, content: bytes) -> str:
    """Return a name that ends as the format of an image says.

    Raises:
        web.HTTPBadRequest: the content is not an image, or is broken.
    """
    with opened(BytesIO(content)) as image:
        kind = str(image.format)
        image.verify()
    if name.lower().endswith(SUFFIXES.get(kind, ())):
        return name
    return f"{os.path.splitext(name)[0] or 'image'}{SUFFIXES[kind][0]}"


def _free_name(folder: str, name: str, content: bytes) -> str:
    """Save under a name that nothing else has, "name (1).png"; the same content is saved once."""
    stem, suffix = os.path.splitext(name)
    for number in itertools.count():
        candidate = f"{stem} ({number}){suffix}" if number else name
        path = inside(folder, candidate)
        if create(path, content) or _holds(path, content):
            return candidate
    raise AssertionError("numbers do not end")


def _holds(path: str, content: bytes) -> bool:
    if not os.path.isfile(path) or os.path.getsize(path) != len(content):
        return False
    with open(path, "rb") as file:
        return file.read() == content
