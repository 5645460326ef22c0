"""Who listens on the WebSocket. A client that does not listen any more holds up nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from .messages import encoded

log = logging.getLogger(__name__)

MAX_WAITING = 2_000
"""Messages that wait for a client; one that has not taken so many is gone."""

MAX_WAITING_PREVIEWS = 8
"""Of those behind which no preview is sent; the next one shows more anyway."""

Message = str | bytes


class Client:
    """One connection.

    Args:
        abort: cuts it without a farewell, which nobody would read.
    """

    def __init__(self, socket: web.WebSocketResponse, abort: Callable[[], None]) -> None:
        self.socket = socket
        self._abort = abort
        self.features: Mapping[str, Any] = {}
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(MAX_WAITING)

    def put(self, message: Message) -> None:
        """Let a message wait to be sent."""
        if isinstance(message, bytes) and self._waiting.qsize() >= MAX_WAITING_PREVIEWS:
            return
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.drop()

    async def write(self) -> None:
        """Send what waits until the connection ends."""
        try:
            while True:
                message = await self._waiting.get()
                if isinstance(message, str):
                    await self.socket.send_str(message)
                else:
                    await self.socket.send_bytes(message)
        except ConnectionError as error:
            log.debug("a client is gone: %s", error)

    def drop(self) -> None:
        """Give the connection up, with all that waits."""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._abort()


class Clients:
    """All connections, by the id that each chose. `tell` may be called from any thread."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send on this loop from now on."""
        self._loop = loop

    def add(self, client_id: str, client: Client) -> None:
        """Add a client; it takes the place of one with its id."""
        self._clients[client_id] = client

    def remove(self, client_id: str, client: Client) -> None:
        """Remove a client, unless another one has taken its id."""
        if self._clients.get(client_id) is client:
            del self._clients[client_id]

    def all(self) -> list[Client]:
        """Return those that are connected."""
        return list(self._clients.values())

    def listens(self, client_id: str | None) -> bool:
        """Return whether a message would reach anybody; None is everybody."""
        return bool(self._clients) if client_id is None else client_id in self._clients

    def has_feature(self, client_id: str | None, name: str) -> bool:
        """Return whether a client said that it knows something."""
        client = self._clients.get(client_id or "")
        return client is not None and client.features.get(name) is True

    def tell(self, event: str, data: Any, client_id: str | None = None) -> None:
        """Send a message to one client, or to all."""
        self.send(lambda: encoded(event, data), client_id)

    def send(self, make: Callable[[], Message], client_id: str | None = None) -> None:
        """Send what `make` returns; it is not called where nobody listens."""
        if self._loop is None or self._loop.is_closed() or not self.listens(client_id):
            return
        self._loop.call_soon_threadsafe(self._put, make(), client_id)

    def _put(self, message: Message, client_id: str | None) -> None:
        found = self.all() if client_id is None else [self._clients.get(client_id)]
        for client in found:
            if client is not None:
                client.put(message)
