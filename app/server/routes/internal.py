"""What the editor asks for its own panels. No client should count on it."""

from __future__ import annotations

import os

from aiohttp import web

from ....host import folder_paths
from ..security import json_object, refuse

routes = web.RouteTableDef()


@routes.get("/internal/folder_paths")
async def folders(request: web.Request) -> web.Response:
    """Return the folders of the models by kind."""
    return web.json_response({name: paths for name, (paths, _) in folder_paths.folder_names_and_paths.items()})


@routes.get("/internal/files/{kind}")
async def files(request: web.Request) -> web.Response:
    """Return the files of the input, output or temp folder, the newest first."""
    kind = request.match_info["kind"]
    folder = folder_paths.get_directory_by_type(kind)
    if folder is None:
        refuse(400, "Invalid directory type")
    if not os.path.isdir(folder):
        return web.json_response([])
    found = [each for each in os.scandir(folder) if each.is_file() and not each.name.startswith(".")]
    newest = sorted(found, key=lambda each: -each.stat().st_mtime)
    return web.json_response([f"{each.name} [{kind}]" for each in newest])


@routes.get("/internal/logs")
async def logs(request: web.Request) -> web.Response:
    """Return nothing: what is logged stays in the terminal."""
    return web.json_response("")


@routes.get("/internal/logs/raw")
async def raw_logs(request: web.Request) -> web.Response:
    """Return nothing, in the shape of the panel for it."""
    return web.json_response({"entries": [], "size": {"cols": 80, "rows": 24}})


@routes.patch("/internal/logs/subscribe")
async def subscribe(request: web.Request) -> web.Response:
    """Take note of nothing."""
    await json_object(request)
    return web.Response()
