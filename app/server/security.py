"""Who may ask, how much, and for which files."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

from aiohttp import web

from ...files.reading import parse_json
from ...host.folder_paths import is_within_directory

log = logging.getLogger(__name__)

MAX_BODY = 100 * 2**20
"""Bytes of a request, ComfyUI's limit."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what another site's page asks for, as ComfyUI does.

    A browser lets any page send requests to this machine. Two headers tell: Sec-Fetch-Site, and an Origin that is not
    the Host, where that is this machine.
    """
    if request.headers.get("Sec-Fetch-Site") == "cross-site" or _is_foreign(request):
        return web.Response(status=403)
    return web.Response() if request.method == "OPTIONS" else await handler(request)


@web.middleware
async def explain_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with one line where the system refuses a file: a folder without write access, a full disk."""
    try:
        return await handler(request)
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        log.warning("%s %s: %s", request.method, request.path, reason)
        return web.json_response(failure(500, reason), status=500)


def _is_foreign(request: web.Request) -> bool:
    host, origin = request.headers.get("Host"), request.headers.get("Origin")
    if host is None or origin is None:
        return False
    here, there = _split(f"//{host}"), _split(origin)
    if here is None or there is None:
        return True
    if here.hostname is None or there.hostname is None or not is_loopback(here.hostname):
        return False
    # A port that only one of them names says nothing.
    ports = {_port(here), _port(there)} - {None}
    return here.hostname != there.hostname or len(ports) > 1


def _split(address: str) -> SplitResult | None:
    """Return the parts of an address; None where its host or port is malformed."""
    try:
        parts = urlsplit(address.lower())
        _ = parts.port
    except ValueError:
        return None
    return parts


def _port(parts: SplitResult) -> int | None:
    return parts.port


def is_loopback(host: str) -> bool:
    """Return whether a name or an address is that of this machine alone; nothing is looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def refuse(status: int, reason: str) -> NoReturn:
    """End a request with one line.

    Raises:
        web.HTTPException: always.
    """
    kinds = {400: web.HTTPBadRequest, 403: web.HTTPForbidden, 404: web.HTTPNotFound, 409: web.HTTPConflict}
    raise kinds[status](text=json.dumps(failure(status, reason)), content_type="application/json")


def failure(status: int, reason: str) -> dict[str, str]:
    """Return why a request failed, in both shapes that ComfyUI has for it: one field, or a code and a message."""
    return {"error": reason, "code": HTTPStatus(status).name.lower(), "message": reason}


async def json_body(request: web.Request) -> Any:
    """Return the body of a request, which must be JSON; numbers that JSON has not (NaN) are refused.

    Raises:
        web.HTTPBadRequest: it is not.
        web.HTTPRequestEntityTooLarge: it is too large.
    """
    content = await request.read()
    try:
        return parse_json(content, parse_constant=_refuse_constant)
    except ValueError as error:
        refuse(400, f"the body is not JSON ({error}); send an object")


async def json_object(request: web.Request) -> dict[str, Any]:
    """Return the body of a request, which must be a JSON object.

    Raises: as `json_body`.
    """
    body = await json_body(request)
    if not isinstance(body, dict):
        refuse(400, f"the body is a {type(body).__name__}; send an object")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def inside(folder: str, *names: str) -> str:
    """Return a path below a folder, which need not exist.

    Raises:
        web.HTTPForbidden: it leads out of the folder, also by a link.
        web.HTTPBadRequest: no file can have such a name.
    """
    try:
        path = os.path.abspath(os.path.join(folder, *names))
        os.fsencode(path)
    except ValueError as error:
        refuse(400, f"no file can have this name ({error})")
    if "\0" in path:
        refuse(400, "no file can have this name")
    if any(len(os.fsencode(part)) > 255 for part in path.split(os.sep)) or len(os.fsencode(path)) > 4000:
        refuse(400, "this name is too long")
    if not is_within_directory(folder, path):
        refuse(403, "this leads out of the folder")
    return path


def safe_name(name: str) -> str:
    """Return a file name that every system takes: no folder, no control characters, nothing hidden, not too long."""
    base = re.split(r"[/\\]", name)[-1]
    base = re.sub(r'[<>:"|?*\x00-\x1f\x7f\ud800-\udfff]', "_", base).strip(" .")
    stem, suffix = os.path.splitext(base)
    return stem.encode()[:150].decode(errors="ignore").rstrip(" .") + suffix[:10]
