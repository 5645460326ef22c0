"""Which models are there."""

from __future__ import annotations

import json
import os
from typing import Any

from aiohttp import web

from ....host import folder_paths
from ..security import refuse

routes = web.RouteTableDef()

MAX_HEADER = 2**20
"""Bytes of the header of a safetensors file that are read."""


@routes.get("/embeddings")
async def embeddings(request: web.Request) -> web.Response:
    """Return the names of textual inversions."""
    return web.json_response([os.path.splitext(name)[0] for name in folder_paths.get_filename_list("embeddings")])


@routes.get("/models")
async def kinds(request: web.Request) -> web.Response:
    """Return the kinds of models."""
    return web.json_response(list(folder_paths.folder_names_and_paths))


@routes.get("/models/{folder}")
async def names(request: web.Request) -> web.Response:
    """Return the models of a kind."""
    return web.json_response(folder_paths.get_filename_list(_known(request.match_info["folder"])))


@routes.get("/experiment/models")
async def folders(request: web.Request) -> web.Response:
    """Return the kinds of models with their folders."""
    told = [
        {"name": name, "folders": folder_paths.get_folder_paths(name), "extensions": sorted(suffixes)}
        for name, (_, suffixes) in folder_paths.folder_names_and_paths.items()
    ]
    return web.json_response(told)


@routes.get("/experiment/models/{folder}")
async def models(request: web.Request) -> web.Response:
    """Return the models of a kind with sizes and times."""
    kind = _known(request.match_info["folder"])
    roots = folder_paths.get_folder_paths(kind)
    return web.json_response([_about(kind, name, roots) for name in folder_paths.get_filename_list(kind)])


def _known(kind: str) -> str:
    name = folder_paths.LEGACY_NAMES.get(kind, kind)
    if name not in folder_paths.folder_names_and_paths:
        refuse(404, "there is no such kind of model")
    return name


def _about(kind: str, name: str, roots: list[str]) -> dict[str, Any]:
    path = folder_paths.get_full_path_or_raise(kind, name)
    told = os.stat(path)
    index = next((i for i, root in enumerate(roots) if path.startswith(os.path.join(root, ""))), 0)
    times = {"modified": told.st_mtime, "created": told.st_ctime}
    return {"name": name, "pathIndex": index, "size": told.st_size, **times}


@routes.get("/view_metadata/{folder}")
async def metadata(request: web.Request) -> web.Response:
    """Return what a safetensors file says of itself."""
    kind, name = _known(request.match_info["folder"]), request.query.get("filename", "")
    try:
        path = folder_paths.get_full_path(kind, name) if name.endswith(".safetensors") else None
    except ValueError:
        path = None
    if path is None or not os.path.isfile(path):
        refuse(404, "there is no such file")
    return web.json_response(_header(path).get("__metadata__") or refuse(404, "it says nothing of itself"))


def _header(path: str) -> dict[str, Any]:
    """Return the header of a safetensors file; {} where it is none, or too long."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            return {}
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return {}
    return header if isinstance(header, dict) else {}
