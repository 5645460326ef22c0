"""The editor's settings, in one file."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from aiohttp import web

from ....files.writing import replace
from ..security import json_body, json_object
from ..state import STATE
from .userdata import user_root

log = logging.getLogger(__name__)
routes = web.RouteTableDef()

FILE = "comfy.settings.json"

DEFAULTS = {
    # The editor asks its makers for news, which tells them that somebody works here.
    "Comfy.Notification.ShowVersionUpdates": False,
    # Scripts get previews where they ask for them: many take any image that they receive for the result.
    "Comfy.Execution.PreviewMethod": "auto",
}
"""Beyond the editor's own."""

NOT_KEPT = ("Comfy.TutorialCompleted",)
"""With this one set, the editor opens a graph of models that are not here in every new browser; else, the templates."""


@routes.get("/settings")
async def settings(request: web.Request) -> web.Response:
    """Return all settings."""
    return web.json_response(_read(_file(request)))


@routes.get("/settings/{id}")
async def setting(request: web.Request) -> web.Response:
    """Return one setting; null where it was never made."""
    return web.json_response(_read(_file(request)).get(request.match_info["id"]))


@routes.post("/settings")
async def change_settings(request: web.Request) -> web.Response:
    """Change settings."""
    return _change(request, await json_object(request))


@routes.post("/settings/{id}")
async def change_setting(request: web.Request) -> web.Response:
    """Change one setting."""
    return _change(request, {request.match_info["id"]: await json_body(request)})


def _file(request: web.Request) -> Path:
    return user_root(request.app[STATE].user_dir) / FILE


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return dict(DEFAULTS)
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read (%s); the editor gets its defaults", path, error)
        return dict(DEFAULTS)
    kept = {name: value for name, value in found.items() if name not in NOT_KEPT} if isinstance(found, dict) else {}
    return DEFAULTS | kept


def _change(request: web.Request, changes: dict[str, Any]) -> web.Response:
    path = _file(request)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, json.dumps(_read(path) | changes, indent=4).encode())
    return web.Response()
