"""A ComfyUI server as an engine: upload inputs, post the prompt, follow it, fetch and verify its files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from ...host.errors import GraphError, shown
from ...host.graph.workflow import Prompt
from ...host.schema.object_info import ObjectInfo
from .engine import Made, Progress, Task, input_files
from .errors import EngineLost
from .http import VIEW, Connection, Damaged, Missing, Unreachable, base_url
from .server_checks import absent_files, refusals, succeeded, with_files, without_files
from .server_files import FileRef, checked, files_of, renumbered, told_of
from .server_info import LooseInfo, ServerInfo, missing_nodes

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""How long a server that has been there may be away before it is given up: a restart loads many packs."""

SILENCE_SECONDS = 15.0
"""Without a message for so long, the history is asked instead."""

PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds before a server that is away is tried again; then always the last."""

MOST_POSTS = 5
"""How often one prompt is posted when the server keeps losing it."""

FETCHES = 3
"""How often a file is fetched that comes damaged."""

DONE_MESSAGES = {"execution_success", "execution_error", "execution_interrupted"}


class _Away:
    """Asks a server again until it has been away for too long."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.is_back()

    def is_back(self) -> None:
        """Begin to wait anew when it is away the next time."""
        self.since, self.pauses = 0.0, iter(PAUSES)

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to a question.

        Raises:
            EngineLost: the server was away for longer than `patience`.
        """
        while True:
            try:
                return await question()
            except Unreachable as error:
                self.since = self.since or time.monotonic()
                if time.monotonic() - self.since > self.patience:
                    raise EngineLost(f"{error.line}; given up after {self.patience:g} s") from error
                await asyncio.sleep(next(self.pauses, PAUSES[-1]))


class ServerEngine:
    """Runs prompts on a ComfyUI server, one at a time.

    Args:
        url: such as `http://127.0.0.1:8188`.
        patience: seconds for which a server that was there may be away.

    Raises:
        GraphError: it is not a URL, or aiohttp is not installed.
    """

    is_local = False

    def __init__(self, url: str, patience: float = PATIENCE_SECONDS) -> None:
        self._connection = Connection(base_url(url))
        self.name = self._connection.name
        self.patience = patience
        self._client_id = uuid.uuid4().hex
        self._info: ServerInfo | None = None
        self._loose: LooseInfo | None = None
        self._uploaded: set[str] = set()
        self._running = ""

    def object_info(self) -> ObjectInfo:
        """Return what the server said of its nodes when it was first asked.

        Raises:
            EngineLost: it cannot be reached, or does not answer as ComfyUI does.
        """
        if self._info is None:
            answer = self._connection.wait_for(self._connection.get_json("/object_info"))
            if not _is_object_info(answer):
                raise EngineLost(f"{self.name}/object_info: found {shown(answer)}; expected nodes, as from ComfyUI")
            self._info = ServerInfo(answer)
        return self._info

    def check(
        self, prompt: Prompt, files: Mapping[str, Path] | None = None, changed: Iterable[str] | None = None
    ) -> Prompt:
        """Return the prompt with converted values; what only the server can judge it says when it is posted."""
        from ...host.graph.validation import check_again, validate

        info = self.object_info()
        missing = missing_nodes(prompt, info, self.name)
        if missing:
            raise GraphError(missing)
        self._loose = self._loose or LooseInfo(self._info or ServerInfo({}))
        provided = set(files or {})
        asked = without_files(prompt, provided, self._loose)
        right = validate(asked, self._loose)[0] if changed is None else check_again(asked, changed, self._loose)
        absent = absent_files(prompt, provided, info, self.name)
        if absent:
            raise GraphError(absent)
        return with_files(right, prompt, provided)

    def run(self, task: Task, progress: Progress | None = None) -> Made:
        """Run a checked prompt; a server that restarts meanwhile gets it again."""
        try:
            return self._connection.wait_for(self._run(task, progress))
        except KeyboardInterrupt:
            self._forget()
            raise

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    async def _run(self, task: Task, progress: Progress | None) -> Made:
        for attempt in (1, 2):
            entry = await self._entry(task, progress)
            refs = files_of(entry.get("outputs"), self.name)
            try:
                contents = [await self._fetch(ref) for ref in refs]
            except Missing:
                if attempt == 2:
                    raise
                # The server answered out of its cache, with a file that somebody has removed.
                await self._connection.post_json("/free", {"free_memory": True})
                continue
            names = renumbered(refs)
            places = {name: (ref.node_id, ref.kind) for name, ref in zip(names, refs, strict=True)}
            return Made(dict(zip(names, contents, strict=True)), told_of(entry.get("outputs") or {}), places)
        raise AssertionError("two attempts end in a return or an error")

    async def _entry(self, task: Task, progress: Progress | None) -> dict[str, Any]:
        """Return the history of the prompt once it has run."""
        self._running = ""
        posts, away = 0, _Away(self.patience)

        async def attempt() -> dict[str, Any]:
            nonlocal posts
            async with self._connection.listening(self._client_id) as socket:
                if not self._running or not await self._is_known(self._running):
                    posts += 1
                    if posts > MOST_POSTS:
                        raise EngineLost(f"{self.name}: lost the prompt {MOST_POSTS} times; does it crash?")
                    if posts > 1:
                        self._uploaded.clear()
                    self._running = await self._post(task)
                away.is_back()
                return await self._follow(socket, self._running, task.prompt, progress)

        return await away.ask(attempt)

    async def _post(self, task: Task) -> str:
        """Upload the input files and queue the prompt; return its id."""
        prompt = await self._upload(task)
        self._running = str(uuid.uuid4())
        body: dict[str, Any] = {"prompt": prompt, "client_id": self._client_id, "prompt_id": self._running}
        if task.extra_pnginfo:
            body["extra_data"] = {"extra_pnginfo": dict(task.extra_pnginfo)}
        status, answer = await self._connection.post_json("/prompt", body)
        if status == 400:
            raise GraphError(refusals(answer, prompt, self.name))
        if not isinstance(answer, dict) or not isinstance(answer.get("prompt_id"), str):
            raise EngineLost(f"{self.name}/prompt: found {shown(answer)}; expected a prompt_id, as from ComfyUI")
        return answer["prompt_id"]

    async def _upload(self, task: Task) -> Prompt:
        """Return the prompt with the names that its input files have on the server."""
        names = {}
        for name, content in task.files.items():
            digest = hashlib.sha256(content).hexdigest()
            names[name] = f"tessera-{digest[:16]}{PurePosixPath(name).suffix.lower()}"
            if digest not in self._uploaded:
                await self._connection.upload(names[name], content)
                self._uploaded.add(digest)
        prompt = dict(task.prompt)
        for node_id, input_name, value in input_files(prompt, self.object_info()) if names else []:
            if value in names:
                node = prompt[node_id]
                prompt[node_id] = {**node, "inputs": {**node["inputs"], input_name: names[value]}}
        return prompt

    async def _is_known(self, prompt_id: str) -> bool:
        """Return whether the server has the prompt in its history or its queue."""
        if prompt_id in await self._history(prompt_id):
            return True
        queue = await self._connection.get_json("/queue")
        lists = (
            [queue.get(name) or [] for name in ("queue_running", "queue_pending")] if isinstance(queue, dict) else []
        )
        return any(isinstance(item, list) and len(item) > 1 and item[1] == prompt_id for each in lists for item in each)

    async def _history(self, prompt_id: str) -> dict[str, Any]:
        found = await self._connection.get_json(f"/history/{prompt_id}")
        return found if isinstance(found, dict) else {}

    async def _follow(
        self, socket: ClientWebSocketResponse[Any], prompt_id: str, prompt: Prompt, progress: Progress | None
    ) -> dict[str, Any]:
        """Wait for the end of a prompt, and return its history."""
        while True:
            entry = (await self._history(prompt_id)).get(prompt_id)
            if isinstance(entry, dict):
                return succeeded(entry, prompt, self.name)
            if not await self._hears_end(socket, prompt_id, progress) and not await self._is_known(prompt_id):
                raise Unreachable(f"{self.name}: no longer knows the prompt")

    async def _hears_end(self, socket: ClientWebSocketResponse[Any], prompt_id: str, progress: Progress | None) -> bool:
        """Read messages until one says that the prompt has ended (True), or none comes for a while (False)."""
        from aiohttp import WSMsgType

        while True:
            try:
                message = await asyncio.wait_for(socket.receive(), SILENCE_SECONDS)
            except asyncio.TimeoutError:
                return False
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR):
                raise Unreachable(f"{self.name}/ws: the connection was closed")
            kind, data = _event(message.data) if message.type == WSMsgType.TEXT else ("", {})
            if data.get("prompt_id", prompt_id) != prompt_id:
                continue
            if kind in DONE_MESSAGES or (kind == "executing" and data.get("node") is None and "prompt_id" in data):
                # The history is written just after the message.
                await asyncio.sleep(0.02)
                return True
            if progress is not None:
                _tell(kind, data, progress)

    async def _fetch(self, ref: FileRef) -> bytes:
        """Return the bytes of a file, verified. Files outlive a restart of the server, which is waited for."""
        wrong = ""
        away = _Away(self.patience)
        for _ in range(FETCHES):
            try:
                content = await away.ask(lambda: self._connection.fetch(VIEW, ref.query))
            except Damaged as error:
                wrong = error.line
                continue
            wrong = checked(ref.filename, content)
            if not wrong:
                return content
        raise EngineLost(f"{self.name}: {ref.filename}: {wrong}; fetched {FETCHES} times")

    def _forget(self) -> None:
        """Take a prompt that nobody waits for out of the server's queue."""
        if not self._running:
            return
        try:
            self._connection.wait_for(self._connection.post_json("/queue", {"delete": [self._running]}))
            self._connection.wait_for(self._connection.post_json("/interrupt", {"prompt_id": self._running}))
        except EngineLost:
            pass


def _is_object_info(answer: Any) -> bool:
    return (
        isinstance(answer, dict)
        and bool(answer)
        and all(isinstance(each, dict) and isinstance(each.get("input"), dict) for each in answer.values())
    )


def _event(text: str) -> tuple[str, dict[str, Any]]:
    try:
        message = json.loads(text)
        return str(message["type"]), message["data"] if isinstance(message.get("data"), dict) else {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", {}


def _tell(kind: str, data: Mapping[str, Any], progress: Progress) -> None:
    if kind == "executing" and data.get("node") is not None:
        progress(str(data["node"]), 0, 1)
    elif kind == "progress" and data.get("node") is not None and data.get("max"):
        progress(str(data["node"]), float(data.get("value") or 0), float(data["max"]))
