"""Files that the editor keeps: workflows, its index of them, user.css."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

from aiohttp import web

from ....files.writing import create, replace
from ..security import inside, json_object, refuse
from ..state import STATE

routes = web.RouteTableDef()

USER = "default"
"""The one user."""

KEPT_FOLDERS = ("workflows", "subgraphs")
"""The editor lists these from its first start on, when nothing is in them yet."""

FIRST_FILES = {"user.css": "", "comfy.templates.json": "[]", "workflows/.index.json": "{}"}
"""And asks for these files; this is in them before it saves them."""


def user_root(user_dir: Path) -> Path:
    """Return the folder of the user's files."""
    return user_dir / USER


@routes.get("/users")
async def users(request: web.Request) -> web.Response:
    """Return where the settings are: here, not in the browser."""
    return web.json_response({"storage": "server", "migrated": user_root(request.app[STATE].user_dir).is_dir()})


@routes.post("/users")
async def add_user(request: web.Request) -> web.Response:
    """Refuse: there is one user."""
    await json_object(request)
    refuse(400, "there is one user here; run a server for each")


@routes.get("/userdata")
async def listing(request: web.Request) -> web.Response:
    """Return the files in `dir`, below it too with `recurse`, with times and sizes with `full_info`."""
    if not request.query.get("dir"):
        refuse(400, "Directory not provided")
    folder = Path(_path(request, request.query["dir"]))
    if not folder.is_dir() and request.query["dir"].strip("/") in KEPT_FOLDERS:
        return web.json_response([])
    if not folder.is_dir():
        refuse(404, "Directory not found")
    found = await asyncio.to_thread(_files, folder, _flag(request, "recurse"))
    if _flag(request, "full_info"):
        return web.json_response([_about(path, folder) for path in found])
    names = [path.relative_to(folder).as_posix() for path in found]
    return web.json_response([[name, *name.split("/")] for name in names] if _flag(request, "split") else names)


@routes.get("/v2/userdata")
async def tree(request: web.Request) -> web.Response:
    """Return the folders and files below `path`."""
    root = user_root(request.app[STATE].user_dir)
    folder = Path(_path(request, request.query.get("path", "")))
    if folder == root.absolute() and not folder.exists():
        return web.json_response([])
    if not folder.exists():
        refuse(404, "Requested path not found")
    if not folder.is_dir():
        refuse(400, "Requested path is not a directory")
    return web.json_response(await asyncio.to_thread(_tree, folder, root))


@routes.get("/userdata/{file}")
async def read(request: web.Request) -> web.StreamResponse:
    """Return a file, to be saved and never shown; user.css alone is for the editor."""
    name = request.match_info["file"]
    if name in FIRST_FILES and not os.path.exists(_path(request, name)):
        kind = "text/css" if name.endswith(".css") else "application/json"
        return web.Response(text=FIRST_FILES[name], content_type=kind)
    path = _present(request, "file")
    css = path == os.path.join(os.path.abspath(user_root(request.app[STATE].user_dir)), "user.css")
    headers = {
        "Content-Type": "text/css" if css else "application/json" if path.endswith(".json") else "text/plain",
        "Content-Disposition": "inline" if css else "attachment",
        "X-Content-Type-Options": "nosniff",
    }
    return web.FileResponse(path, headers=headers)


@routes.post("/userdata/{file}")
async def write(request: web.Request) -> web.Response:
    """Save a file; with `overwrite=false` only where there is none."""
    path = _path(request, request.match_info["file"])
    content = await request.read()
    await asyncio.to_thread(_write, path, content, _overwrites(request))
    return _told(request, path)


@routes.delete("/userdata/{file}")
async def delete(request: web.Request) -> web.Response:
    """Delete a file."""
    os.remove(_present(request, "file"))
    return web.Response(status=204)


@routes.post("/userdata/{file}/move/{dest}")
async def move(request: web.Request) -> web.Response:
    """Give a file another name; with `overwrite=false` only where that is free."""
    source, target = _present(request, "file"), _path(request, request.match_info["dest"])
    if not _overwrites(request) and os.path.exists(target):
        refuse(409, "File already exists")
    _make_folder(target)
    shutil.move(source, target)
    return _told(request, target)


def _path(request: web.Request, name: str) -> str:
    root = user_root(request.app[STATE].user_dir)
    return inside(os.path.abspath(root), name)


def _present(request: web.Request, name: str) -> str:
    path = _path(request, request.match_info[name])
    if not os.path.isfile(path):
        refuse(404, "there is no such file")
    return path


def _write(path: str, content: bytes, overwrite: bool) -> None:
    _make_folder(path)
    try:
        if overwrite:
            replace(path, content)
        elif not create(path, content):
            refuse(409, "File already exists")
    except OSError as error:
        refuse(400, f"the file cannot be saved ({error.strerror or error})")


def _make_folder(path: str) -> None:
    if os.path.isdir(path):
        refuse(400, "this is a folder")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError as error:
        refuse(400, f"the folder cannot be made ({error.strerror or error})")


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() == "true"


def _overwrites(request: web.Request) -> bool:
    return request.query.get("overwrite") != "false"


def _told(request: web.Request, path: str) -> web.Response:
    root = Path(os.path.abspath(user_root(request.app[STATE].user_dir)))
    about = _about(Path(path), root)
    return web.json_response(about if _flag(request, "full_info") else about["path"])


def _about(path: Path, root: Path) -> dict[str, Any]:
    told = path.stat()
    times = {"modified": int(told.st_mtime * 1000), "created": int(told.st_ctime * 1000)}
    return {"path": path.relative_to(root).as_posix(), "size": told.st_size, **times}


def _files(folder: Path, recurse: bool) -> list[Path]:
    """Return files that are not hidden, sorted; links are not followed out of the folder."""
    found = folder.rglob("*") if recurse else folder.glob("*")
    inner = os.path.realpath(folder)
    return sorted(
        path
        for path in found
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and os.path.realpath(path).startswith(os.path.join(inner, ""))
    )


def _tree(folder: Path, root: Path) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    base = os.path.abspath(root)
    for place, folders, names in os.walk(folder):
        here = Path(place)
        for name in folders:
            told.append({"name": name, "path": (here / name).relative_to(base).as_posix(), "type": "directory"})
        for name in names:
            path = here / name
            if path.is_file() and not path.is_symlink():
                stat = path.stat()
                about = {"name": name, "path": path.relative_to(base).as_posix(), "type": "file"}
                told.append({**about, "size": stat.st_size, "modified": stat.st_mtime})
    return sorted(told, key=lambda each: (each["type"] != "directory", each["name"].lower()))
