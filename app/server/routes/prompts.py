"""Prompts: sent, waiting, stopped, done."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

from aiohttp import web

from ....host.errors import GraphError
from ....host.graph.documents import Workflow
from ....host.graph.validation import Examined
from ....host.graph.workflow import to_prompt
from ...checking import examine
from ..jobs import Job, QueueFull
from ..messages import jsonable
from ..prompt_errors import error, missing_class, node_errors, prompt_error
from ..security import json_object, refuse
from ..state import STATE, State

routes = web.RouteTableDef()

NOT_KEPT = ("auth_token_comfy_org", "api_key_comfy_org")
"""What clients send for services of others: nobody here needs it, and the history must not show it."""


@routes.get("/prompt")
async def status(request: web.Request) -> web.Response:
    """Return how much there is to do."""
    return web.json_response(request.app[STATE].status())


@routes.post("/prompt")
async def post_prompt(request: web.Request) -> web.Response:
    """Check a prompt and let it wait; what of it is right runs, as in ComfyUI."""
    state, body = request.app[STATE], await json_object(request)
    if "prompt" not in body:
        return _refused(error("no_prompt", "No prompt provided", "No prompt provided"))
    found = _settings_of(body)
    if isinstance(found, str):
        return _refused(error("invalid_prompt", "The request is malformed", found))
    prompt_id = _prompt_id(body)
    if prompt_id is None:
        line = "prompt_id must be a UUID in lower case with hyphens; leave it out to get one"
        return _refused(error("invalid_prompt_id", "prompt_id must be a valid UUID", line))
    examined = await asyncio.to_thread(_examine, state, body)
    if not isinstance(examined, Examined):
        return _refused(examined)
    wrong = prompt_error(examined, body["prompt"])
    if wrong is not None:
        return _refused(wrong, {} if wrong["type"] == "missing_node_type" else node_errors(examined))
    number = state.queue.number(bool(body.get("front"))) if body.get("number") is None else body["number"]
    size = len(await request.read())
    job = Job(number, prompt_id, examined.prompt, examined.runnable, found, size, examined.resting)
    try:
        state.queue.put(job)
    except QueueFull as full:
        return _refused(error("queue_full", "The queue is full", str(full)), status=429)
    told = {"prompt_id": prompt_id, "number": number, "node_errors": jsonable(node_errors(examined))}
    return web.json_response(jsonable(told))


def _refused(wrong: dict[str, Any], nodes: dict[str, Any] | None = None, status: int = 400) -> web.Response:
    return web.json_response({"error": jsonable(wrong), "node_errors": jsonable(nodes or {})}, status=status)


def _settings_of(body: dict[str, Any]) -> dict[str, Any] | str:
    """Return the `extra_data` of a job, or what is wrong with it."""
    extra = {} if body.get("extra_data") is None else body["extra_data"]
    if not isinstance(extra, dict):
        return "extra_data must be an object"
    extra = {name: value for name, value in extra.items() if name not in NOT_KEPT}
    if not isinstance(extra.get("extra_pnginfo") or {}, dict):
        return "extra_data.extra_pnginfo must be an object"
    client_id = body.get("client_id", extra.get("client_id"))
    if not isinstance(client_id, (str, type(None))):
        return "client_id must be text"
    number = body.get("number")
    if number is not None and (isinstance(number, bool) or not isinstance(number, (int, float))):
        return "number must be a number"
    targets = body.get("partial_execution_targets")
    if targets is not None and not (isinstance(targets, list) and all(isinstance(each, str) for each in targets)):
        return "partial_execution_targets must be a list of node ids"
    if client_id is not None:
        extra["client_id"] = client_id
    return {**extra, "create_time": int(time.time() * 1000)}


def _prompt_id(body: dict[str, Any]) -> str | None:
    """Return the id that the client chose, or a new one; None where it is not one."""
    chosen = body.get("prompt_id")
    if chosen is None:
        return str(uuid.uuid4())
    return chosen if is_uuid(chosen) else None


def is_uuid(text: Any) -> bool:
    """Return whether text is a UUID as Python writes it."""
    try:
        return isinstance(text, str) and str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _examine(state: State, body: dict[str, Any]) -> Examined | dict[str, Any]:
    """Return what was found of a prompt, or the error of one that is not even a graph."""
    prompt = body["prompt"]
    if isinstance(prompt, dict):
        for node_id, node in prompt.items():
            if isinstance(node, dict) and "class_type" not in node:
                return missing_class(node_id, node, f"node {node_id}: there is no class_type; export the graph again")
    info = state.object_info()
    try:
        return examine(to_prompt(Workflow(prompt=prompt), info), info, body.get("partial_execution_targets"))
    except GraphError as wrong:
        return error("invalid_prompt", "The prompt is not a graph", "\n".join(wrong.lines))


@routes.get("/queue")
async def queue(request: web.Request) -> web.Response:
    """Return what runs and what waits."""
    running, pending, _ = request.app[STATE].queue.snapshot()
    told = {"queue_running": [job.as_item() for job in running], "queue_pending": [job.as_item() for job in pending]}
    return web.json_response(jsonable(told))


@routes.post("/queue")
async def change_queue(request: web.Request) -> web.Response:
    """Take waiting prompts away: all (`clear`), or some (`delete`)."""
    waiting, body = request.app[STATE].queue, await json_object(request)
    if body.get("clear"):
        waiting.clear()
    for prompt_id in _ids(body, "delete"):
        waiting.delete(prompt_id)
    return web.Response()


@routes.post("/interrupt")
async def interrupt(request: web.Request) -> web.Response:
    """Stop the prompt that runs, or only if it is the one named."""
    body = await json_object(request) if request.can_read_body else {}
    request.app[STATE].queue.interrupt(body.get("prompt_id") or None)
    return web.Response()


@routes.post("/free")
async def free(request: web.Request) -> web.Response:
    """Drop models and cached results before the next prompt."""
    body = await json_object(request)
    if body.get("unload_models") or body.get("free_memory"):
        request.app[STATE].queue.ask_to_free()
    return web.Response()


@routes.get("/history")
async def history(request: web.Request) -> web.Response:
    """Return what came of prompts: of all, of the last `max_items`, or of so many from `offset` on."""
    _, _, entries = request.app[STATE].queue.snapshot()
    limit, offset = _number(request, "max_items"), _number(request, "offset")
    start = max(0, len(entries) - limit if limit is not None and (offset is None or offset < 0) else offset or 0)
    end = None if limit is None else start + max(limit, 1)
    return web.json_response(jsonable(dict(list(entries.items())[start:end])))


def _number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        refuse(400, f"{name} must be a whole number")


@routes.get("/history/{prompt_id}")
async def history_of(request: web.Request) -> web.Response:
    """Return what came of one prompt, by its id; nothing where it is unknown or not done."""
    prompt_id = request.match_info["prompt_id"]
    _, _, entries = request.app[STATE].queue.snapshot()
    return web.json_response(jsonable({prompt_id: entries[prompt_id]} if prompt_id in entries else {}))


@routes.post("/history")
async def change_history(request: web.Request) -> web.Response:
    """Forget prompts: all (`clear`), or some (`delete`)."""
    waiting, body = request.app[STATE].queue, await json_object(request)
    if body.get("clear"):
        waiting.forget_all()
    for prompt_id in _ids(body, "delete"):
        waiting.forget(prompt_id)
    return web.Response()


def _ids(body: dict[str, Any], name: str) -> list[str]:
    ids = body.get(name) or []
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        refuse(400, f"{name} must be a list of ids")
    return ids
