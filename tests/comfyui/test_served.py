"""What `tessera serve` answers and tells, beside what ComfyUI answers and tells."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from comfyui.server import ComfyUI
from serving import STRIPES, process

if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to compare its API with tessera serve"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.comfyui

Graph = dict[str, Any]


SEAMLESS = copy.deepcopy(STRIPES) | {
    "7": {"class_type": "TesseraSeamlessModel", "inputs": {"model": ["1", 0], "tiling": "both"}}
}
SEAMLESS["4"]["inputs"]["model"] = ["7", 0]
"""A node before the output that shows something."""


def changed(node_id: str, whole: Graph = STRIPES, **inputs: Any) -> Graph:
    """The graph with other inputs of one node; None takes one away."""
    graph = copy.deepcopy(whole)
    graph[node_id]["inputs"] |= inputs
    graph[node_id]["inputs"] = {name: value for name, value in graph[node_id]["inputs"].items() if value is not None}
    return graph


WRONG: dict[str, Any] = {
    "missing value": {"prompt": changed("4", steps=None)},
    "missing link": {"prompt": changed("4", model=None)},
    "too small": {"prompt": changed("4", steps=0)},
    "too big": {"prompt": changed("4", denoise=1.5)},
    "not a number": {"prompt": changed("4", steps="many")},
    "not in a list": {"prompt": changed("1", name="texture-xl")},
    "not in a long list": {"prompt": changed("4", sampler_name="eulr")},
    "of another type": {"prompt": changed("4", model=["3", 0])},
    "malformed link": {"prompt": changed("4", model=["1", 0, 0])},
    "two at once": {"prompt": changed("4", steps=0, cfg=None)},
    "circle": {"prompt": changed("4", latent_image=["4", 0])},
    "no class": {"prompt": STRIPES | {"9": {"inputs": {}}}},
    "unknown class": {"prompt": STRIPES | {"9": {"class_type": "Unknown", "inputs": {}, "_meta": {"title": "Mine"}}}},
    "no outputs": {"prompt": {node_id: node for node_id, node in STRIPES.items() if node_id != "6"}},
    "empty": {"prompt": {}},
    "no prompt": {},
    "bad id": {"prompt": STRIPES, "prompt_id": "mine"},
}


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Of ComfyUI and of ours."""
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    theirs = ComfyUI(checkout, tmp_path_factory.mktemp("comfyui"), "tessera", "--cache-classic")
    with theirs, process(tmp_path_factory.mktemp("tessera")) as ours:
        yield f"http://127.0.0.1:{theirs.port}", ours


def both(addresses: tuple[str, str], ask: Callable[[ClientSession], Awaitable[Any]]) -> tuple[Any, Any]:
    """Ask both the same."""

    async def run(address: str) -> Any:
        async with ClientSession(address) as session:
            return await ask(session)

    theirs, ours = (asyncio.run(run(address)) for address in addresses)
    return theirs, ours


def comparable(told: Any) -> Any:
    """An answer without what is beyond ComfyUI's, or an exception's text."""
    if isinstance(told, dict):
        # Choices, tooltips and the like are compared where nodes are.
        return {name: comparable(each) for name, each in told.items() if name not in ("line", "input_config")}
    return [comparable(each) for each in told] if isinstance(told, list) else told


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_prompt_gets_the_same_answer(addresses: tuple[str, str], case: str) -> None:
    async def ask(session: ClientSession) -> Any:
        async with session.post("/prompt", json=WRONG[case]) as response:
            told = comparable(await response.json())
            # ComfyUI repeats here what is wrong with the outputs themselves; ours, what is wrong with any node.
            told["error"].pop("details")
            for node in told["node_errors"].values():
                # ComfyUI looks at the inputs in no order.
                node["errors"].sort(key=repr)
            return response.status, told

    theirs, ours = both(addresses, ask)
    assert ours == theirs


async def told_of(session: ClientSession, graph: Graph) -> list[Any]:
    """The messages of a run, without what differs from run to run."""
    async with session.ws_connect("/ws?clientId=me") as socket:
        async with session.post("/prompt", json={"prompt": graph, "client_id": "me"}) as response:
            prompt_id = (await response.json())["prompt_id"]
        told = []
        async for message in socket:
            each = message.json()
            about = each["data"]
            if each["type"] in ("status", "progress_state"):
                continue
            assert about.pop("prompt_id") == prompt_id
            about.pop("timestamp", None)
            for name in ("executed", "nodes", "current_outputs"):
                about[name] = sorted(about.get(name, []))
            if "text" in (about.get("output") or {}):
                # It names the network, whose class is another.
                about["output"]["text"] = len(about["output"]["text"])
            told.append((each["type"], about))
            if each["type"] == "executing" and about["node"] is None:
                return told
    raise AssertionError("the connection ended before the run")


@pytest.mark.parametrize("whole", [STRIPES, SEAMLESS], ids=["plain", "seamless"])
def test_a_run_and_its_repetition_are_told_of_in_the_same_messages(addresses: tuple[str, str], whole: Graph) -> None:
    async def ask(session: ClientSession) -> Any:
        runs = (whole, whole, changed("5", whole), changed("4", whole, seed=2))
        return [await told_of(session, graph) for graph in runs]

    theirs, ours = both(addresses, ask)
    for their_run, our_run in zip(theirs, ours, strict=True):
        # The order of nodes that do not depend on each other is free.
        assert sorted(map(repr, our_run)) == sorted(map(repr, their_run))
        assert our_run[:2] == their_run[:2]
        assert our_run[-3:] == their_run[-3:]


SHAPES = [
    "/queue",
    "/history",
    "/prompt",
    "/api/jobs",
    "/models",
    "/embeddings",
    "/users",
    "/features",
    "/system_stats",
]


@pytest.mark.parametrize("path", SHAPES)
def test_what_we_answer_has_the_shape_of_comfyuis(addresses: tuple[str, str], path: str) -> None:
    async def ask(session: ClientSession) -> Any:
        async with session.get(path) as response:
            return response.status, await response.json()

    (their_status, theirs), (our_status, ours) = both(addresses, ask)
    assert our_status == their_status
    assert type(ours) is type(theirs)
    if path == "/history":
        entries = zip(theirs.values(), ours.values(), strict=True)
        for their_entry, our_entry in entries:
            assert our_entry.keys() == their_entry.keys()
            assert our_entry["prompt"][2] == their_entry["prompt"][2]
            assert our_entry["outputs"].keys() == their_entry["outputs"].keys()
            assert our_entry["meta"] == their_entry["meta"]
            assert our_entry["status"].keys() == their_entry["status"].keys()
    elif path == "/api/jobs":
        assert [job.keys() for job in ours["jobs"]] == [job.keys() for job in theirs["jobs"]]
    elif path == "/system_stats":
        assert ours["system"].keys() == theirs["system"].keys()
        assert ours["devices"][0].keys() == theirs["devices"][0].keys()
    elif path == "/models":
        assert {"checkpoints", "loras", "vae", "embeddings"} <= set(ours) & set(theirs)
    elif path == "/features":
        assert ours.keys() <= theirs.keys()
    else:
        assert ours == theirs
