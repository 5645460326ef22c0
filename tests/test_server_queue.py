"""The queue: who waits, who is stopped, who has gone."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc
import uuid
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from graph_nodes import CLASSES, node
from serving import Client, answer, done, heard, listening, post, run_prompt, serve
from tessera.app.server import clients, jobs
from tessera.app.server.jobs import Job, JobQueue
from tessera.host import progress
from tessera.host.schema import io

OPEN = threading.Event()
STEPS: list[float] = []
SUM = {"1": node("Number", value=4), "0": node("Show", value=["1", 0])}
WAITS = {"1": node("Gate"), "0": node("Show", value=["1", 0])}


class Gate(io.ComfyNode):
    """Waits, step by step, until the gate is open."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Gate", inputs=[], outputs=[io.Int.Output()])

    @classmethod
    def fingerprint_inputs(cls) -> float:
        return time.monotonic()

    @classmethod
    def execute(cls) -> io.NodeOutput:
        bar = progress.ProgressBar(1_000_000)
        while not OPEN.wait(0.005):
            bar.update(1)
            STEPS.append(bar.current)
        return io.NodeOutput(1)


@pytest.fixture(autouse=True)
def shut() -> None:
    """The gate is shut."""
    OPEN.clear()
    STEPS.clear()


def gated(folder: Path, test: Any) -> None:
    """Run a test against a server that has a gate; it is opened at the end."""

    async def then_open(client: Client) -> None:
        try:
            await test(client)
        finally:
            OPEN.set()

    serve(folder, then_open, classes=CLASSES | {"Gate": Gate})


async def begun() -> None:
    """Wait until the gate's node runs."""
    while not STEPS:
        await asyncio.sleep(0.005)


async def waiting(client: Client) -> list[str]:
    """The ids of the prompts that wait."""
    _, queue = await answer(client, "GET", "/queue")
    return [item[1] for item in queue["queue_pending"]]


def test_waiting_prompts_are_ordered_listed_deleted_and_cleared(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        running = (await post(client, WAITS))[1]["prompt_id"]
        await begun()
        first, second = [(await post(client, SUM))[1]["prompt_id"] for _ in range(2)]
        front = (await post(client, SUM, front=True))[1]["prompt_id"]
        chosen = str(uuid.uuid4())
        assert (await post(client, SUM, prompt_id=chosen, number=1.5))[1] == {
            "prompt_id": chosen,
            "number": 1.5,
            "node_errors": {},
        }
        assert await waiting(client) == [front, first, chosen, second]
        _, queue = await answer(client, "GET", "/queue")
        assert [item[1] for item in queue["queue_running"]] == [running]
        assert queue["queue_pending"][1][2:3] == [SUM]
        assert await answer(client, "GET", "/prompt") == (200, {"exec_info": {"queue_remaining": 5}})
        await answer(client, "POST", "/queue", json={"delete": [first, "unknown"]})
        assert await answer(client, "POST", f"/api/jobs/{second}/cancel") == (200, {"cancelled": True})
        assert await waiting(client) == [front, chosen]
        await answer(client, "POST", "/queue", json={"clear": True})
        assert await waiting(client) == []
        assert (await answer(client, "GET", "/api/jobs?status=in_progress"))[1]["jobs"][0]["id"] == running

    gated(tmp_path, test)


@pytest.mark.parametrize("by", ["interrupt", "interrupt by id", "cancel", "cancel many"])
def test_what_runs_is_stopped_at_its_next_step(tmp_path: Path, by: str) -> None:
    async def test(client: Client) -> None:
        async with listening(client, "me") as socket:
            prompt_id = (await post(client, WAITS, client_id="me"))[1]["prompt_id"]
            await begun()
            other = {"prompt_id": str(uuid.uuid4())}
            await answer(client, "POST", "/interrupt", json=other)
            path, body = {
                "interrupt": ("/interrupt", None),
                "interrupt by id": ("/interrupt", {"prompt_id": prompt_id}),
                "cancel": (f"/api/jobs/{prompt_id}/cancel", None),
                "cancel many": ("/api/jobs/cancel", {"job_ids": [prompt_id]}),
            }[by]
            assert (await answer(client, "POST", path, json=body))[0] == 200
            before = len(STEPS)
            messages, _ = await heard(socket, prompt_id)
        assert len(STEPS) <= before + 1
        told = next(each["data"] for each in messages if each["type"] == "execution_interrupted")
        assert (told["node_id"], told["node_type"], told["executed"]) == ("1", "Gate", [])
        entry = await done(client, prompt_id)
        assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
        _, listed = await answer(client, "GET", "/api/jobs")
        assert listed["jobs"][0]["status"] == "cancelled"
        assert (await run_prompt(client, SUM))["status"]["completed"], "the next prompt is not stopped"

    gated(tmp_path, test)


def test_stopping_one_prompt_does_not_disturb_the_check_of_another(tmp_path: Path) -> None:
    even = {"1": node("Even", value=2), "0": node("Show", value=["1", 0])}

    async def test(client: Client) -> None:
        progress.interrupt_current_processing()
        assert (await post(client, even))[0] == 200
        assert (await post(client, even | {"1": node("Even", value=3)}))[0] == 400

    gated(tmp_path, test)


def test_stopping_when_nothing_runs_stops_nothing(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        await answer(client, "POST", "/interrupt", json={})
        assert (await run_prompt(client, SUM))["status"]["completed"]

    gated(tmp_path, test)


def test_a_prompt_that_is_stopped_before_its_first_node_does_not_run() -> None:
    queue = JobQueue()
    queue.put(Job(0, "a", {}, []))
    job = queue.take()
    assert job is not None
    assert queue.interrupt("a")
    assert job.interrupted
    progress.interrupt_current_processing(False)


def test_a_client_that_comes_back_hears_of_its_prompt(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with listening(client, "me"):
            prompt_id = (await post(client, WAITS, client_id="me"))[1]["prompt_id"]
            await begun()
        async with client.ws_connect("/ws?clientId=me") as socket:
            told = [await socket.receive_json() for _ in range(2)]
            assert told[0]["data"] == {"status": {"exec_info": {"queue_remaining": 1}}, "sid": "me"}
            assert told[1] == {"type": "executing", "data": {"node": "1"}}
            OPEN.set()
            messages, _ = await heard(socket, prompt_id)
            assert "execution_success" in {each["type"] for each in messages}

    gated(tmp_path, test)


def test_a_client_that_takes_no_message_is_dropped_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "MAX_WAITING", 20)
    dropped: list[bool] = []
    deaf = clients.Client(None, lambda: dropped.append(True))  # pyright: ignore[reportArgumentType]
    for number in range(20):
        deaf.put(f"message {number}")
    assert not dropped
    deaf.put("one more")
    assert dropped == [True]


def test_previews_do_not_wait_behind_many_messages() -> None:
    slow = clients.Client(None, lambda: None)  # pyright: ignore[reportArgumentType]
    for _ in range(100):
        slow.put(b"preview")
    slow.put("a message")
    assert slow._waiting.qsize() == clients.MAX_WAITING_PREVIEWS + 1


def test_200_prompts_of_three_clients_of_which_one_vanishes(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with listening(client, "a") as first, listening(client, "b") as second:
            ids: dict[str, list[str]] = {"a": [], "b": [], "gone": []}
            gone = await client.ws_connect("/ws?clientId=gone")
            for number in range(200):
                who = ("a", "b", "gone")[number % 3]
                value = {"1": node("Number", value=number % 11), "0": node("Show", value=["1", 0])}
                ids[who].append((await post(client, value, client_id=who))[1]["prompt_id"])
                if number == 100:
                    assert gone._response.connection is not None
                    gone._response.connection.transport.abort()  # pyright: ignore[reportOptionalMemberAccess]
            for who, socket in (("a", first), ("b", second)):
                for prompt_id in ids[who]:
                    messages, _ = await heard(socket, prompt_id)
                    kinds = [each["type"] for each in messages]
                    assert {each["data"]["prompt_id"] for each in messages} == {prompt_id}
                    assert kinds[0] == "execution_start"
                    assert kinds[-2] == "execution_success"
            entries = [await done(client, prompt_id) for some in ids.values() for prompt_id in some]
            assert len(entries) == 200
            assert all(entry["status"]["completed"] for entry in entries)
            numbers = [entry["prompt"][0] for entry in entries]
            assert sorted(numbers) == list(range(200))

    gated(tmp_path, test)


def finished(queue: JobQueue, prompt_id: str, size: int = 1) -> None:
    queue.put(Job(0, prompt_id, {}, [], size=size))
    job = queue.take()
    assert job is not None
    queue.finish(job, {"prompt": job.as_item()})


def test_the_history_is_bounded_in_entries_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_HISTORY", 5)
    monkeypatch.setattr(jobs, "MAX_HISTORY_BYTES", 100)
    queue = JobQueue()
    for number in range(8):
        finished(queue, str(number))
    assert list(queue.snapshot()[2]) == ["3", "4", "5", "6", "7"]
    finished(queue, "large", size=98)
    assert list(queue.snapshot()[2]) == ["6", "7", "large"]
    finished(queue, "too large", size=1000)
    assert list(queue.snapshot()[2]) == ["too large"], "the last one is kept, whatever its size"


def test_no_more_than_a_bound_of_prompts_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_PENDING", 2)

    async def test(client: Client) -> None:
        await post(client, WAITS)
        await begun()
        for _ in range(2):
            assert (await post(client, SUM))[0] == 200
        status, told = await post(client, SUM)
        assert (status, told["error"]["type"]) == (429, "queue_full")

    gated(tmp_path, test)


def test_memory_does_not_grow_with_the_number_of_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_HISTORY", 10)

    async def run(session: ClientSession, count: int) -> int:
        """Memory that is in use after so many prompts of clients that come and go."""
        for number in range(count):
            prompt = {"1": node("Paint", batch=1 + number % 4), "2": node("Save", images=["1", 0], filename_prefix="x")}
            async with session.ws_connect(f"/ws?clientId={number}") as socket:
                body = {"prompt": prompt, "client_id": str(number)}
                async with session.post("/prompt", json=body) as response:
                    prompt_id = (await response.json())["prompt_id"]
                messages, _ = await heard(socket, prompt_id)
            assert "execution_success" in {each["type"] for each in messages}
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def test(client: Client) -> None:
        tracemalloc.start()
        try:
            # A session of its own: the test's client keeps every answer.
            async with ClientSession(str(client.make_url("/"))) as session:
                before = await run(session, 30)
                assert await run(session, 60) - before < 200_000
        finally:
            tracemalloc.stop()

    gated(tmp_path, test)
