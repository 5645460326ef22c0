"""A batch that was disturbed: every job has its results once, as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from batch.fake_comfyui import FakeComfyUI, serving
from batch.shades import FAULTS, GRAPH, RUNS, Tessera, contents, lines, table
from graph_nodes import node
from tessera.app.batch import journal
from tessera.app.batch.journal import Journal
from tessera.app.batch.queue import TABLES
from tessera.host.graph.failures import is_out_of_memory


def test_same_command_runs_what_is_missing_or_failed(tessera: Tessera) -> None:
    FAULTS[8] = [ValueError("no such grey")]
    FAULTS[9] = [RuntimeError("lost")] * 3
    code, out, err = tessera("graph.json", table(7, 8, 9))
    assert (code, RUNS) == (1, [7, 8, 9, 9, 9])
    assert out[0].startswith("1 of 3 jobs done, 2 failed")
    assert [line.split(":")[0] for line in err] == ["line 3", "line 4"]
    RUNS.clear()
    assert tessera("graph.json", table(7, 8, 9, 10))[0] == 0
    assert RUNS == [8, 9, 10]
    assert sorted(line["inputs"]["1.grey"] for line in lines()) == [7, 8, 9, 10]
    RUNS.clear()
    code, out, _ = tessera("graph.json", table(7, 8, 9, 10), "--json")
    told = json.loads(out[0])
    assert (code, told["done"], told["done_before"], RUNS) == (0, 4, 4, [])


def test_failed_job_is_tried_again(tessera: Tessera) -> None:
    FAULTS[8] = [RuntimeError("once"), RuntimeError("twice")]
    assert tessera("graph.json", table(7, 8))[0] == 0
    assert {line["inputs"]["1.grey"]: line["tries"] for line in lines()} == {7: 1, 8: 3}
    FAULTS[9] = [RuntimeError("once")]
    assert tessera("graph.json", table(9), "--retries", 0, "--output-dir", "other")[0] == 1


def test_interrupted_batch_goes_on(tessera: Tessera) -> None:
    FAULTS[8] = [KeyboardInterrupt()]
    code, _, err = tessera("graph.json", table(7, 8, 9))
    assert (code, len(err)) == (130, 1)
    assert tessera("graph.json", table(7, 8, 9))[0] == 0
    disturbed = contents()
    shutil.rmtree("batch")
    assert tessera("graph.json", table(7, 8, 9))[0] == 0
    assert contents() == disturbed


@pytest.mark.parametrize("place", ["write", "fsync", "rename"])
def test_full_disk_stops_in_one_line_and_the_rest_is_run_later(
    tessera: Tessera, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    original = getattr(os, place)
    calls = []

    def full(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 9:
            raise OSError(28, "No space left on device", "batch/x")
        return original(*arguments, **named)

    with monkeypatch.context() as patch:
        # The journal's disk alone; what a job needs of another one is its own matter.
        patch.setattr(journal, "os", SimpleNamespace(**{**vars(os), place: full}))
        code, _, err = tessera("graph.json", table(*range(30)))
    assert code == 1
    assert len([line for line in err if "No space left" in line]) == 1
    assert tessera("graph.json", table(*range(30)))[0] == 0
    disturbed = contents()
    shutil.rmtree("batch")
    assert tessera("graph.json", table(*range(30)))[0] == 0
    assert contents() == disturbed
    assert len(lines()) == 30


def test_what_a_killed_process_leaves_is_repaired(tessera: Tessera) -> None:
    assert tessera("graph.json", table(7, 8, 9))[0] == 0
    undisturbed = contents()
    results = Path("batch/results.jsonl")
    first, second, third = results.read_text().splitlines(keepends=True)
    # The last line torn, the files of a job half written, those of another complete without a line.
    results.write_text(first + first + second + third[:20])
    Path("batch/.partial-abc").mkdir()
    Path("batch/.partial-abc/x.png").write_bytes(b"half")
    RUNS.clear()
    assert tessera("graph.json", table(7, 8, 9))[0] == 0
    assert RUNS == [9]
    assert contents() == undisturbed and len(lines()) == 3
    shutil.rmtree(Path("batch", json.loads(first)["job"]))
    assert tessera("graph.json", table(7, 8, 9))[0] == 0
    assert contents() == undisturbed and len(lines()) == 3


def test_second_coordinator_is_refused(tessera: Tessera) -> None:
    held = Journal(Path("batch"))
    code, _, err = tessera("graph.json", table(7))
    assert (code, len(err), RUNS) == (2, 1, [])
    held.close()
    assert tessera("graph.json", table(7))[0] == 0


def test_dates_in_file_names_are_those_of_the_first_start(tessera: Tessera, monkeypatch: pytest.MonkeyPatch) -> None:
    node_of_editor = {
        "id": 2,
        "type": "Save",
        "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
        "widgets_values": ["%date:yyyy-MM-dd%_tile"],
    }
    shade = {"id": 1, "type": "Shade", "outputs": [{"links": [1]}], "widgets_values": [1, "a"]}
    document = {"nodes": [shade, node_of_editor], "links": [[1, 1, 0, 2, 0, "IMAGE"]]}
    Path("editor.json").write_text(json.dumps(document))
    monkeypatch.setattr(journal.time, "time", lambda: 0.0)
    assert tessera("editor.json", table(1, 2))[0] == 0
    monkeypatch.setattr(journal.time, "time", lambda: 1e9)
    RUNS.clear()
    assert tessera("editor.json", table(1, 2, 3))[0] == 0
    assert RUNS == [3]
    assert all(Path(line["files"][0]).name.startswith(("1970", "1969")) for line in lines())


def test_batch_on_a_server_survives_its_restart(tessera: Tessera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.app.engines.server.PAUSES", (0.01,))
    graph = {"1": node("Seeded", seed=1, steps=1), "2": node("Paint", batch=1), "3": GRAPH["2"]}
    graph["3"] = node("Save", images=["2", 0], filename_prefix="tile")
    Path("graph.json").write_text(json.dumps(graph))
    Path("table.csv").write_text("seed\n" + "\n".join(map(str, range(6))))
    with serving(FakeComfyUI()) as comfyui:
        assert tessera("graph.json", "table.csv", "--engine", comfyui.url)[0] == 0
        undisturbed = contents()
        comfyui.restarts_after_posts = {8, 11}
        assert tessera("graph.json", "table.csv", "--engine", comfyui.url, "--output-dir", "other")[0] == 0
        assert contents("other") == undisturbed
        assert len(comfyui.posts) == 14
    code, _, err = tessera("graph.json", "table.csv", "--engine", comfyui.url, "--output-dir", "third")
    assert (code, len(err)) == (1, 1)


def test_disk_that_is_full_from_the_start_is_told(tessera: Tessera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tessera.app.batch.queue.TABLES", TABLES.replace("CREATE TABLE", "PRAGMA max_page_count = 1; CREATE TABLE")
    )
    code, out, err = tessera("graph.json", table(7))
    assert (code, out, len(err)) == (1, [], 1)
    assert "No space left" in err[0]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("3 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("shapes differ"), False),
        (None, False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error: BaseException | None, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_file_that_changes_meanwhile_is_not_taken_for_the_other(
    tessera: Tessera, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("input").mkdir()
    Path("input/x.png").write_text("before")
    Path("table.csv").write_text("image\nx.png\n")
    recover = Journal.recover

    def and_change(self: Journal, queue: Any) -> int:
        Path("input/x.png").write_text("after that")
        return recover(self, queue)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "recover", and_change)
        assert tessera("files.json", "table.csv")[0] == 1
    assert "changed" in lines()[0]["error"]
    assert tessera("files.json", "table.csv")[0] == 0
    assert [line["outputs"]["2"]["text"] for line in lines() if line["error"] is None] == [["after that"]]
