"""HTTP and WebSocket to one server, with every failure as one line."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ...host.errors import GraphError, one_line, shown
from .errors import EngineLost

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, ClientWebSocketResponse

T = TypeVar("T")

VIEW = "/view"
"""Where files are."""

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""How long a server may be silent while it answers."""

HEARTBEAT_SECONDS = 20.0
MOST_JSON_BYTES = 2**28
MOST_FILE_BYTES = 2**31
MOST_MESSAGE_BYTES = 2**26
"""A WebSocket message; previews are the largest."""

STARTING_STATUSES = {502, 503, 504}
"""What a proxy answers while the server behind it starts."""


class Unreachable(EngineLost):
    """The server may come back."""


class Damaged(EngineLost):
    """A file ended too early."""


class Missing(EngineLost):
    """The server has nothing under that path."""


def base_url(text: str) -> str:
    """Return the address of a server without the slash at its end.

    Raises:
        GraphError: it is not an http or https URL.
    """
    try:
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query:
            return text.rstrip("/")
    except ValueError:
        pass
    raise GraphError([f"--engine {shown(text)}: expected embedded, or a server such as http://127.0.0.1:8188"])


class Connection:
    """A server and the event loop that talks to it; made when it is first used.

    Args:
        url: from `base_url`.
    """

    def __init__(self, url: str) -> None:
        try:
            import aiohttp  # noqa: F401
        except ImportError as error:
            raise GraphError(["--engine URL needs aiohttp; pip install tessera-nodes[engine]"]) from error
        self.url = url
        parts = urlsplit(url)
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: ClientSession | None = None

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        task = self._loop.create_task(work)
        try:
            return self._loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            self._loop.run_until_complete(asyncio.wait([task]))
            raise

    def close(self) -> None:
        """Close the connections."""
        if self._loop is None:
            return
        if self._session is not None:
            self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._loop = self._session = None

    async def get_json(self, path: str) -> Any:
        """Return the JSON under a path."""
        return self._json(path, *await self._ask("GET", path, MOST_JSON_BYTES))

    async def post_json(self, path: str, content: Any) -> tuple[int, Any]:
        """Post JSON; return the status, which may be a refusal, and the JSON of the answer."""
        status, body = await self._ask("POST", path, MOST_JSON_BYTES, refusals=True, json=content)
        if not body and status < 300:
            return status, None
        return status, self._json(path, status, body)

    async def upload(self, name: str, content: bytes) -> None:
        """Put a file into the server's input folder."""
        import aiohttp

        form = aiohttp.FormData()
        form.add_field("image", content, filename=name, content_type="application/octet-stream")
        form.add_field("overwrite", "true")
        await self._ask("POST", "/upload/image", MOST_JSON_BYTES, data=form)

    async def fetch(self, path: str, query: Mapping[str, str]) -> bytes:
        """Return the bytes under a path."""
        return (await self._ask("GET", path, MOST_FILE_BYTES, params=dict(query)))[1]

    @asynccontextmanager
    async def listening(self, client_id: str) -> AsyncIterator[ClientWebSocketResponse[Any]]:
        """Open the WebSocket of a client, and close it at the end."""
        socket = await self._listen(client_id)
        try:
            yield socket
        finally:
            await socket.close()

    async def _listen(self, client_id: str) -> ClientWebSocketResponse[Any]:
        import aiohttp

        try:
            return await self._opened().ws_connect(
                f"{self.url}/ws",
                params={"clientId": client_id},
                heartbeat=HEARTBEAT_SECONDS,
                max_msg_size=MOST_MESSAGE_BYTES,
            )
        except aiohttp.WSServerHandshakeError as error:
            if error.status in STARTING_STATUSES:
                raise Unreachable(f"{self.name}/ws: answered {error.status}") from error
            raise EngineLost(
                f"{self.name}/ws: answered {error.status} instead of opening a WebSocket; expected a ComfyUI server"
            ) from error
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise self._lost("/ws", error) from error

    def _opened(self) -> ClientSession:
        import aiohttp

        if self._session is None:
            limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS)
            self._session = aiohttp.ClientSession(timeout=limits)
        return self._session

    async def _ask(
        self, method: str, path: str, most: int, refusals: bool = False, **options: Any
    ) -> tuple[int, bytes]:
        import aiohttp

        try:
            async with self._opened().request(
                method, f"{self.url}{path}", allow_redirects=False, **options
            ) as response:
                body = await _bounded(response, most, f"{self.name}{path}")
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise self._lost(path, error) from error
        if 200 <= response.status < 300 or (refusals and response.status == 400):
            return response.status, body
        told = f"{self.name}{path}: answered {response.status} {one_line(response.reason or '')}".rstrip()
        if response.status in STARTING_STATUSES:
            raise Unreachable(told)
        if response.status == 404:
            raise Missing(f"{told}; expected a ComfyUI server")
        raise EngineLost(f"{told}; {_advice(response.status)}")

    def _lost(self, path: str, error: Exception) -> EngineLost:
        import aiohttp

        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason = one_line(str(error.certificate_error))
            return EngineLost(
                f"{self.name}: its certificate is not trusted ({reason}); use the name that it is made for, "
                "or set SSL_CERT_FILE to the authority that signed it"
            )
        if isinstance(error, aiohttp.ClientSSLError):
            return EngineLost(f"{self.name}: no TLS connection ({_reason(error)}); is it http instead of https?")
        if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
            return Unreachable(f"{self.name}{path}: no answer within {ANSWER_SECONDS:g} s; is it busy or stuck?")
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return Unreachable(f"{self.name}: hung up without an answer; is it busy, or https instead of http?")
        if isinstance(error, aiohttp.ClientPayloadError):
            kind = Damaged if path == VIEW else Unreachable
            return kind(f"{self.name}{path}: the answer ended too early ({one_line(str(error))})")
        if isinstance(error, (aiohttp.ClientConnectionError, OSError)):
            return Unreachable(f"{self.name}: cannot be reached ({_reason(error)}); is ComfyUI running there?")
        return EngineLost(f"{self.name}{path}: no answer of HTTP ({one_line(str(error))}); expected a ComfyUI server")

    def _json(self, path: str, status: int, body: bytes) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise EngineLost(
                f"{self.name}{path}: answered {status} with {shown(body[:40].decode('utf-8', 'replace'))} instead of "
                "JSON; expected a ComfyUI server"
            ) from error


async def _bounded(response: ClientResponse, most: int, name: str) -> bytes:
    """Return a body of at most `most` bytes."""
    parts, size = [], 0
    async for part in response.content.iter_chunked(2**20):
        size += len(part)
        if size > most:
            raise EngineLost(f"{name}: answered more than {most} bytes; expected a ComfyUI server")
        parts.append(part)
    return b"".join(parts)


def _reason(error: Exception) -> str:
    import aiohttp

    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    number = getattr(inner, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(inner, ssl.SSLError):
        return os.strerror(number)
    return one_line(str(inner)) or type(inner).__name__


def _advice(status: int) -> str:
    if status in (401, 403):
        return "it wants a login; give it as https://NAME:PASSWORD@HOST, or open it for this machine"
    if 300 <= status < 400:
        return "it leads to another address; give that one to --engine"
    return "expected a ComfyUI server"
