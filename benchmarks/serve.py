"""A prompt sent to `tessera serve` compared with the same graph in `tessera.run`. Budget: 1.05 times its time.

Both run in this process, by turns, with the demo model loaded and another random seed each time: a 128 px texture of 20
steps, saved. The server's part includes its HTTP, its messages to one listening client, and its history. It may be
below 1: the server keeps the results of all nodes whose inputs are the same, `tessera.run` those of the loaders.

    python benchmarks/serve.py
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import tessera
from aiohttp import ClientSession, web
from paired import compare
from tessera.app.server.application import make_application
from tessera.host import folder_paths

BUDGET = 1.05
PAIRS = 11
ROOT = Path(__file__).parents[1]
GRAPH = json.loads((ROOT / "tests" / "workflows" / "seamless_texture.api.json").read_text(encoding="utf-8"))
SAMPLER = next(node_id for node_id, node in GRAPH.items() if node["class_type"] == "KSampler")


def graph(seed: int) -> dict[str, Any]:
    """The example with another random seed."""
    node = GRAPH[SAMPLER]
    return GRAPH | {SAMPLER: node | {"inputs": node["inputs"] | {"seed": seed}}}


class Served:
    """A server and a client of it, on an event loop of their own."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.wait(self._start(folder))

    def wait(self, work: Any) -> Any:
        """Wait for work on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    async def _start(self, folder: Path) -> None:
        self.runner = web.AppRunner(make_application(None, folder / "user"))
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.session = ClientSession(f"http://127.0.0.1:{self.runner.addresses[0][1]}")
        self.socket = await self.session.ws_connect("/ws?clientId=me")

    async def run(self, prompt: dict[str, Any]) -> None:
        """Send a prompt and listen until it has ended."""
        async with self.session.post("/prompt", json={"prompt": prompt, "client_id": "me"}) as response:
            prompt_id = (await response.json())["prompt_id"]
        ended = {"type": "executing", "data": {"node": None, "prompt_id": prompt_id}}
        while await self.socket.receive_json() != ended:
            pass

    async def stop(self) -> None:
        """End both."""
        await self.session.close()
        await self.runner.cleanup()


def main() -> int:
    """Print both times and their ratio; 1 where it is over the budget."""
    seeds = itertools.count()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folders = {"models_dir": name, "input_dir": name, "output_dir": name}
        folder_paths.configure(**folders)
        served = Served(folder)
        plain, ours, ratio = compare(
            lambda: tessera.run(graph(next(seeds)), **folders),
            lambda: served.wait(served.run(graph(next(seeds)))),
            "cpu",
            PAIRS,
        )
        served.wait(served.stop())
    print(f"tessera.run {plain:.3f} s, tessera serve {ours:.3f} s: {ratio:.3f} times; budget {BUDGET}")
    return int(ratio > BUDGET)


if __name__ == "__main__":
    sys.exit(main())
