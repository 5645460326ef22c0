"""A server that draws for hours, and is stopped at any step: it grows by nothing, and its models stay as they were.

`pytest -m faults --long tests/faults/test_servers.py` draws 1,000 images and stops every example at every step, in
`tessera serve` and, with COMFYUI_PATH, in a real ComfyUI; `--log-cli-level=INFO` tells numbers. CI does little of it.
"""

from __future__ import annotations

import asyncio
import copy
import io
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from comfyui.server import ComfyUI
from PIL import Image
from serving import STRIPES, numbered_process
from test_interrupts import EXAMPLES, SHORT, plain, shortened

LOG = logging.getLogger(__name__)

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

RUNS, LONG_RUNS = 60, 1000
GROWTH = 20 * 2**20
"""Bytes that a server may grow by while it draws: what its history of prompts and the allocator take."""

SHORTEST = "flux_negative"
"""The example of CI."""

Graph = dict[str, Any]
Server = tuple[str, int]
"""The address, and the number of the process."""


@pytest.fixture(scope="module", params=["serve", "comfyui"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    if request.param == "serve":
        with numbered_process(folder) as started:
            yield started
        return
    if "COMFYUI_PATH" not in os.environ or not request.config.getoption("long"):
        pytest.skip("with --long, and COMFYUI_PATH set to a ComfyUI checkout")
    with ComfyUI(Path(os.environ["COMFYUI_PATH"]).resolve(), folder, "tessera", "--cache-classic") as theirs:
        yield f"http://127.0.0.1:{theirs.port}", theirs.process.pid


def held(process: int) -> tuple[int, int, int]:
    """Bytes of memory, open files and threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    memory = int(status["RssAnon"].split()[0]) * 1024
    return memory, len(os.listdir(f"/proc/{process}/fd")), int(status["Threads"])


class Client:
    """One connection that runs prompts one after the other."""

    def __init__(self, session: ClientSession, socket: Any) -> None:
        self.session, self.socket = session, socket

    steps = 0
    """Which the last prompt told of."""

    async def run(self, graph: Graph, stop_after: int | None = None) -> tuple[str, str]:
        """Run a prompt, and stop it when it has told of so many steps; its id and how it ended."""
        async with self.session.post("/prompt", json={"prompt": graph, "client_id": "me"}) as response:
            told = await response.json()
            assert response.status == 200, told
        self.steps, end = 0, ""
        async for message in self.socket:
            if not isinstance(message.data, str):
                continue
            each = message.json()
            if each["type"] in ("execution_success", "execution_interrupted", "execution_error"):
                end = each["type"]
            # Told when the prompt is in the history.
            if each == {"type": "executing", "data": {"node": None, "prompt_id": told["prompt_id"]}}:
                return told["prompt_id"], end
            self.steps += each["type"] == "progress"
            if each["type"] == "progress" and self.steps == stop_after:
                await self.session.post("/interrupt", json={})
        raise AssertionError("the connection ended")

    async def pixels(self, graph: Graph) -> list[bytes]:
        """What a prompt saves."""
        prompt_id, end = await self.run(graph)
        assert end == "execution_success"
        async with self.session.get(f"/history/{prompt_id}") as response:
            outputs = (await response.json())[prompt_id]["outputs"]
        found = []
        for shown in (each for node in outputs.values() for each in node["images"]):
            async with self.session.get("/view", params=shown) as response:
                found.append(Image.open(io.BytesIO(await response.read())).tobytes())
        return found


def connected(server: Server, test: Callable[[Client], Awaitable[None]]) -> None:
    """Run a test with a client of a server."""

    async def run() -> None:
        async with ClientSession(server[0]) as session, session.ws_connect("/ws?clientId=me", max_msg_size=0) as socket:
            await test(Client(session, socket))

    asyncio.run(run())


def seeded(graph: Graph, number: int) -> Graph:
    """A graph with another seed, which nothing is kept of."""
    graph = copy.deepcopy(graph)
    for node in graph.values():
        for name in ("seed", "noise_seed"):
            if isinstance(node["inputs"].get(name), int):
                node["inputs"][name] += number
    return graph


def test_a_server_that_draws_for_long_does_not_grow(server: Server, request: pytest.FixtureRequest) -> None:
    runs = LONG_RUNS if request.config.getoption("long") else RUNS

    async def test(client: Client) -> None:
        before = (0, 0, 0)
        for number in range(runs):
            if number == runs // 2:
                before = held(server[1])
            _, end = await client.run(seeded(STRIPES, number))
            assert end == "execution_success"
        after = held(server[1])
        LOG.info("bytes, files, threads: %s after %d runs, %s after %d", before, runs // 2, after, runs)
        assert after[0] <= before[0] + GROWTH and after[1] <= before[1] + 1 and after[2] <= before[2] + 1

    connected(server, test)


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem.removesuffix(".api")) for path in EXAMPLES])
def test_a_stopped_prompt_leaves_the_model_as_it_was(
    server: Server, path: Path, request: pytest.FixtureRequest
) -> None:
    name = path.stem.removesuffix(".api")
    long = request.config.getoption("long")
    if not long and name != SHORTEST:
        pytest.skip("with --long")
    graph = json.loads(path.read_text())
    simple = plain(graph)
    if simple is None:
        pytest.skip("loads no model")
    graph = graph if long else shortened(graph, SHORT[name])

    async def test(client: Client) -> None:
        expected = await client.pixels(seeded(simple, 0))
        await client.run(graph)
        steps, stopped = client.steps, 0
        for step in range(1, steps + 1):
            # Near its end a prompt may be done before it hears that it is to stop.
            stopped += (await client.run(seeded(graph, step), step))[1] == "execution_interrupted"
            await client.run(seeded(simple, step))
            assert await client.pixels(simple) == expected, f"after a stop at {step}"
        LOG.info("%s: stopped at %d of %d steps", name, stopped, steps)
        assert stopped

    connected(server, test)
