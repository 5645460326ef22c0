"""The web application: every route with and without /api, and the editor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import WSCloseCode, web

from ...host.schema.node import ComfyNode
from ..registry import node_classes
from . import pack
from .routes import editor, files, info, internal, jobs, models, prompts, settings, socket, uploads, userdata
from .security import MAX_BODY, explain_failures, same_origin
from .state import STATE, State

ROUTES = [editor, files, info, internal, jobs, models, prompts, settings, socket, uploads, userdata]


def make_application(
    editor_dir: Path | None, user_dir: Path, classes: dict[str, type[ComfyNode]] | None = None
) -> web.Application:
    """Return the application on the folders and the device that are configured.

    Args:
        editor_dir: the editor's static files; None serves the API alone.
        user_dir: where settings and workflows of the editor are saved.
        classes: the nodes by id; all there are by default.
    """
    application = web.Application(
        middlewares=[editor.not_kept, same_origin, explain_failures], client_max_size=MAX_BODY
    )
    application[STATE] = State(classes or node_classes(), editor_dir, user_dir)
    application.cleanup_ctx.append(_working)
    application.on_shutdown.append(_say_goodbye)
    for module in ROUTES:
        for route in module.routes:
            if isinstance(route, web.RouteDef):
                application.router.add_route(route.method, f"/api{route.path}", route.handler)
                application.router.add_route(route.method, route.path, route.handler)
    for prefix in ("/api", ""):
        application.router.add_static(f"{prefix}/extensions/{pack.NAME}", pack.WEB)
    if editor_dir is not None:
        application.router.add_static("/", editor_dir)
    return application


async def _working(application: web.Application) -> AsyncIterator[None]:
    from ...nodes.extension import Tessera

    state = application[STATE]
    state.clients.open(asyncio.get_running_loop())
    state.worker.start()
    await Tessera().on_load()
    yield
    await asyncio.to_thread(state.worker.stop)


async def _say_goodbye(application: web.Application) -> None:
    """End the connections, for which the end would wait otherwise."""
    for client in application[STATE].clients.all():
        await client.socket.close(code=WSCloseCode.GOING_AWAY)
