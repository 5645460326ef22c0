# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""What the pack adds to ComfyUI's server: answers for its interface, and nodes that stand in for others'."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from comfy_api.latest import io


def add_route(path: str, answer: Callable[[Mapping[str, str]], dict[str, Any]]) -> None:
    """Answer a GET of a path with JSON, which `answer` makes of the query in a thread."""
    from aiohttp import web
    from server import PromptServer

    async def respond(request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(answer, request.query))

    PromptServer.instance.routes.get(path)(respond)


async def add_replacement(entry: Mapping[str, Any]) -> None:
    """Offer a node of the pack where a workflow has one that is not installed.

    Args:
        entry: the arguments of `io.NodeReplace`; a ComfyUI that is too old for it offers none.
    """
    if hasattr(io, "NodeReplace"):
        from comfy_api.latest import ComfyAPI

        await ComfyAPI().node_replacement.register(io.NodeReplace(**entry))
