"""The WebSocket over which a client hears of what runs."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from ..clients import Client
from ..messages import encoded
from ..security import MAX_BODY
from ..state import STATE, State

log = logging.getLogger(__name__)
routes = web.RouteTableDef()

FEATURES = {
    "supports_preview_metadata": True,
    "max_upload_size": MAX_BODY,
    "node_replacements": True,
    "assets": False,
}
"""What the server can do, by ComfyUI's names."""

GOODBYE_SECONDS = 2.0
"""How long a client may take to answer that the connection ends."""


@routes.get("/ws")
async def connect(request: web.Request) -> web.WebSocketResponse:
    """Tell a client what happens until it leaves; one that comes back with its id hears of its prompt again."""
    state = request.app[STATE]
    socket = web.WebSocketResponse(timeout=GOODBYE_SECONDS)
    await socket.prepare(request)
    transport = request.transport
    client = Client(socket, transport.abort if transport else lambda: None)
    client_id = request.query.get("clientId") or uuid.uuid4().hex
    state.clients.add(client_id, client)
    writing = asyncio.create_task(client.write())
    try:
        client.put(encoded("status", {"status": state.status(), "sid": client_id}))
        _catch_up(state, client, client_id)
        first = True
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                if first:
                    _read_features(client, message.data)
                first = False
    finally:
        state.clients.remove(client_id, client)
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
    return socket


def _catch_up(state: State, client: Client, client_id: str) -> None:
    told = state.worker.current
    if told is not None and told.job.client_id == client_id and told.node_id is not None:
        client.put(encoded("executing", {"node": told.node_id}))


def _read_features(client: Client, text: str) -> None:
    """Take note of what a client can do, and answer with what the server can."""
    try:
        message: Any = json.loads(text)
    except (ValueError, RecursionError):
        log.debug("a client sent what is not JSON")
        return
    if isinstance(message, dict) and message.get("type") == "feature_flags":
        told = message.get("data")
        client.features = told if isinstance(told, dict) else {}
        client.put(encoded("feature_flags", FEATURES))


@routes.get("/features")
async def features(request: web.Request) -> web.Response:
    """Return what the server can do."""
    return web.json_response(FEATURES)
