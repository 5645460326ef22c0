"""A server in the test's own event loop, and a client of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from aiohttp import ClientWebSocketResponse, WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from graph_nodes import CLASSES
from tessera.app.server.application import make_application
from tessera.host import folder_paths

Client: TypeAlias = TestClient
Message = dict[str, Any]
SECONDS = 60

STRIPES: dict[str, Any] = {
    "1": {"class_type": "TesseraDemoCheckpoint", "inputs": {"name": "texture-sd"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "red and white stripes"}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "4": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0],
            "positive": ["2", 0],
            "negative": ["2", 0],
            "latent_image": ["3", 0],
            "seed": 1,
            "steps": 2,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        },
    },
    "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
    "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "stripes"}},
}
"""A small image of texture-sd, saved."""


@asynccontextmanager
async def served(folder: Path, **options: Any) -> AsyncIterator[Client]:
    """A server of the nodes of `graph_nodes` on empty folders, and a client."""
    for name in ("input", "output", "temp", "models"):
        (folder / name).mkdir(exist_ok=True)
    folder_paths.configure(*(str(folder / name) for name in ("models", "input", "output", "temp")))
    options = {"classes": CLASSES, "editor_dir": None, "user_dir": folder / "user"} | options
    try:
        async with TestClient(TestServer(make_application(**options))) as client:
            yield client
    finally:
        folder_paths.configure()


def serve(folder: Path, test: Callable[[Client], Awaitable[Any]], **options: Any) -> Any:
    """Run a test against a server."""

    async def run() -> Any:
        async with served(folder, **options) as client:
            return await asyncio.wait_for(test(client), SECONDS)

    return asyncio.run(run())


async def answer(client: Client, method: str, path: str, **options: Any) -> tuple[int, Any]:
    """The status and the JSON (or text) of an answer."""
    async with client.request(method, path, **options) as response:
        text = await response.text()
        is_json = response.content_type == "application/json"
        return response.status, json.loads(text) if is_json and text else text


async def post(client: Client, prompt: Any, **more: Any) -> tuple[int, Any]:
    """Send a prompt."""
    return await answer(client, "POST", "/prompt", json={"prompt": prompt, **more})


async def done(client: Client, prompt_id: str) -> dict[str, Any]:
    """Wait for a prompt; its entry in the history."""
    while True:
        _, entries = await answer(client, "GET", f"/history/{prompt_id}")
        if entries:
            return entries[prompt_id]
        await asyncio.sleep(0.01)


async def run_prompt(client: Client, prompt: Any, **more: Any) -> dict[str, Any]:
    """Send a prompt that is right, and wait for it."""
    status, told = await post(client, prompt, **more)
    assert status == 200, told
    return await done(client, told["prompt_id"])


@asynccontextmanager
async def listening(client: Client, client_id: str, **features: Any) -> AsyncIterator[ClientWebSocketResponse]:
    """A connection to the WebSocket."""
    async with client.ws_connect(f"/ws?clientId={client_id}") as socket:
        await socket.send_str(json.dumps({"type": "feature_flags", "data": features}))
        while (await socket.receive_json())["type"] != "feature_flags":
            pass
        yield socket


async def heard(socket: Any, prompt_id: str) -> tuple[list[Message], list[bytes]]:
    """All messages of a prompt until its end, without `status`; and the binary ones."""
    texts: list[Message] = []
    binary: list[bytes] = []
    async for message in socket:
        if message.type == WSMsgType.BINARY:
            binary.append(message.data)
            continue
        told = message.json()
        if told["type"] != "status":
            texts.append(told)
        if told == {"type": "executing", "data": {"node": None, "prompt_id": prompt_id}}:
            return texts, binary
    raise AssertionError("the connection ended before the prompt")


@contextmanager
def process(folder: Path) -> Iterator[str]:
    """`tessera serve` in a process of its own, which works in a folder; its address."""
    with numbered_process(folder) as (address, _):
        yield address


@contextmanager
def numbered_process(folder: Path) -> Iterator[tuple[str, int]]:
    """`tessera serve` in a process of its own, which works in a folder; its address and the process's number."""
    command = [sys.executable, "-m", "tessera.app.cli.main", "serve", "--port", "0"]
    log = folder / "log.txt"
    with log.open("w") as errors:
        started = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert started.stdout is not None
    try:
        words = started.stdout.readline().split()
        assert words, log.read_text()
        yield words[3].rstrip(";"), started.pid
    finally:
        started.terminate()
        started.communicate(timeout=60)
