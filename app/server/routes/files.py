"""Images and other files of the input, output and temp folder."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import re
from io import BytesIO
from typing import TYPE_CHECKING

from aiohttp import web

from ....host import folder_paths
from ..security import inside, refuse
from .uploads import opened

if TYPE_CHECKING:
    from PIL import Image

routes = web.RouteTableDef()

RUNS = ("html", "javascript", "ecmascript", "css", "svg", "xml")
"""What a browser would run or read as a page; it is downloaded instead of shown."""

QUALITY = 90
"""Of previews that name none."""


@routes.get("/view")
async def view(request: web.Request) -> web.StreamResponse:
    """Return a file: as it is, as a `preview` ("webp;90" or "jpeg;75"), or one `channel` ("rgb" or "a")."""
    path = find(request.query.get("filename", ""), request.query.get("subfolder", ""), request.query.get("type"))
    if not os.path.isfile(path):
        refuse(404, "there is no such file")
    channel = request.query.get("channel", "")
    if "preview" in request.query:
        return await asyncio.to_thread(_preview, path, request.query["preview"], channel)
    if channel in ("rgb", "a"):
        return await asyncio.to_thread(_one_channel, path, channel)
    return web.FileResponse(path, headers=_headers(path))


def find(filename: str, subfolder: str = "", kind: str | None = None) -> str:
    """Return the path that the editor means by a name, which may end with the kind of folder: "a.png [input]".

    Raises:
        web.HTTPException: there is no such folder, or the path leads out of it.
    """
    name, folder = folder_paths.annotated_filepath(filename)
    if not name or name.startswith(("/", "\\")) or ".." in name:
        refuse(400, "filename must be the name of a file")
    folder = folder or folder_paths.get_directory_by_type(kind or "output")
    if folder is None:
        refuse(400, "type must be input, output or temp")
    return inside(folder, inside(folder, subfolder), os.path.basename(name))


def _headers(path: str) -> dict[str, str]:
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    runs = any(each in kind for each in RUNS)
    return {
        "Content-Type": "application/octet-stream" if runs else kind,
        "Content-Disposition": _disposition(path, "attachment" if runs else "inline"),
        "X-Content-Type-Options": "nosniff",
    }


def _disposition(path: str, kind: str = "inline") -> str:
    name = re.sub(r"[^ !#-\[\]-~]", "_", os.path.basename(path))
    return f'{kind}; filename="{name}"'


def _answer(image: Image.Image, path: str, kind: str, quality: int | None = None) -> web.Response:
    file = BytesIO()
    image.save(file, kind, **({} if quality is None else {"quality": quality}))
    headers = {"Content-Disposition": _disposition(path)}
    return web.Response(body=file.getvalue(), content_type=f"image/{kind}", headers=headers)


def _preview(path: str, wanted: str, channel: str) -> web.Response:
    kind, *rest = wanted.split(";")
    kind = kind if kind in ("webp", "jpeg") and "a" not in channel else "webp"
    quality = int(rest[-1]) if rest and re.fullmatch("[0-9]{1,3}", rest[-1]) else QUALITY
    with opened(path) as image:
        rgb = kind == "jpeg" or channel == "rgb"
        shown = image.convert("RGB") if rgb else image if image.mode in ("RGB", "RGBA") else image.convert("RGBA")
        return _answer(shown, path, kind, min(max(quality, 1), 100))


def _one_channel(path: str, channel: str) -> web.Response:
    from PIL import Image

    with opened(path) as image:
        if channel == "rgb":
            # Converting would lay the image over black where it is transparent.
            bands = image.split()[:3] if image.mode == "RGBA" else image.convert("RGB").split()
            return _answer(Image.merge("RGB", bands), path, "png")
        alpha = image.getchannel("A") if image.mode == "RGBA" else Image.new("L", image.size, 255)
        shown = Image.new("RGBA", image.size)
        shown.putalpha(alpha)
        return _answer(shown, path, "png")
