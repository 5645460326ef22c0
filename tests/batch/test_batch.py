"""`tessera batch`: every row once, whatever happens in between."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from batch.fake_comfyui import FakeComfyUI, serving
from graph_nodes import CLASSES, node
from PIL import Image
from tessera.app.batch import batch, journal
from tessera.app.batch.journal import Journal
from tessera.app.batch.queue import TABLES, JobQueue
from tessera.app.batch.worker import is_out_of_memory
from tessera.app.cli.main import main
from tessera.app.cli.webhook import Webhook
from tessera.host import folder_paths
from tessera.host.schema import io, ui
from tessera.host.schema.node import ComfyNode

Outcome = tuple[int, list[str], list[str]]
Tessera = Callable[..., Outcome]
RUNS: list[int] = []
FAULTS: dict[int, list[BaseException]] = {}
"""What a shade raises, try by try."""


class Shade(io.ComfyNode):
    """A grey image, or a fault."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Shade",
            inputs=[io.Int.Input("grey", default=0, min=0, max=255), io.String.Input("model", default="")],
            outputs=[io.Image.Output(), io.Int.Output(display_name="grey")],
        )

    @classmethod
    def execute(cls, grey: int, model: str) -> io.NodeOutput:
        RUNS.append(grey)
        if FAULTS.get(grey):
            raise FAULTS[grey].pop(0)
        return io.NodeOutput(torch.full((1, 4, 6, 3), grey / 255), grey)


class Open(io.ComfyNode):
    """An image of the input folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Open",
            inputs=[io.Combo.Input("image", options=[], upload=io.UploadType.image)],
            outputs=[io.String.Output()],
        )

    @classmethod
    def validate_inputs(cls, image: str) -> bool | str:
        return folder_paths.exists_annotated_filepath(image) or f"{image} is not there"

    @classmethod
    def fingerprint_inputs(cls, image: str) -> str:
        return Path(folder_paths.get_annotated_filepath(image)).read_text()

    @classmethod
    def execute(cls, image: str) -> io.NodeOutput:
        return io.NodeOutput(Path(folder_paths.get_annotated_filepath(image)).read_text())


class Tell(io.ComfyNode):
    """An output that shows a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Tell", is_output_node=True, inputs=[io.String.Input("text", force_input=True)])

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        return io.NodeOutput(ui=ui.PreviewText(text))


GRAPH = {"1": node("Shade", grey=1, model="a"), "2": node("Save", images=["1", 0], filename_prefix="tile")}
FILES = {"1": node("Open", image="x.png"), "2": node("Tell", text=["1", 0])}


@pytest.fixture
def tessera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Tessera]:
    """Run `tessera batch` in an empty folder: exit code, output, error lines."""
    classes: dict[str, type[ComfyNode]] = {**CLASSES, "Shade": Shade, "Open": Open, "Tell": Tell}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tessera.app.registry.node_classes", lambda: classes)
    RUNS.clear()
    FAULTS.clear()
    for name, graph in {"graph.json": GRAPH, "files.json": FILES}.items():
        Path(name).write_text(json.dumps(graph))

    def call(*arguments: Any) -> Outcome:
        capsys.readouterr()
        try:
            code = main(["batch", *map(str, arguments)])
        except SystemExit as stopped:
            assert isinstance(stopped.code, int)
            code = stopped.code
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    yield call
    folder_paths.configure()


def table(*greys: object) -> str:
    Path("table.csv").write_text("\n".join(["grey", *map(str, greys), ""]))
    return "table.csv"


def lines(folder: str = "batch") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]


def contents(folder: str = "batch") -> dict[str, bytes]:
    """The files of all jobs, each named by exactly one line."""
    named = [name for line in lines(folder) for name in line["files"]]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).glob("*/*")}
    assert sorted(named) == sorted(found)
    return found


def test_every_row_is_a_job_with_its_files(tessera: Tessera) -> None:
    code, out, err = tessera("graph.json", table(7, 8, 9))
    assert (code, err) == (0, [])
    assert out[0].startswith("3 of 3 jobs done")
    assert [(line["line"], line["inputs"], line["error"], line["tries"]) for line in lines()] == [
        (i, {"1.grey": grey}, None, 1) for i, grey in ((2, 7), (3, 8), (4, 9))
    ]
    greys = [Image.open(Path("batch", line["files"][0])).getpixel((0, 0)) for line in lines()]
    assert greys == [(grey,) * 3 for grey in (7, 8, 9)]
    assert Image.open("batch/contact_sheet.jpg").size == (3 * 132 + 4, 136)
    assert {path.name for path in Path("batch").iterdir()} == {
        *(line["job"] for line in lines()),
        "results.jsonl",
        "contact_sheet.jpg",
        "batch.json",
        ".lock",
    }


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


def test_jobs_of_one_model_follow_one_another(tessera: Tessera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.app.batch.plan.LOADED", {"IMAGE"})
    rows = "\n".join(f"1,{model},{i}" for i, model in enumerate("abcabcab"))
    Path("table.csv").write_text("1.grey,1.model,2.filename_prefix\n" + rows + "\n")
    assert tessera("graph.json", "table.csv")[0] == 0
    assert [line["inputs"]["1.model"] for line in lines()] == list("aaabbbcc")


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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("grey\n", "table.csv: found no rows"),
        ("", "table.csv: found no rows"),
        ("gray\n1\n", 'table.csv: column "gray"'),
        ("grey\n1\n256\n", "table.csv, line 3: node 1 Shade, input grey: found 256"),
        ("grey\n1\n2\n1\n", "table.csv, line 4: the same job as line 2"),
        ("grey,2.filename_prefix\n1,x\n2\n", "table.csv, line 3: found 1 cells; expected 2"),
        ("grey,1.grey\n1,2\n", 'table.csv, line 2: column "1.grey"'),
    ],
)
def test_bad_row_is_told_with_its_line_before_anything_runs(tessera: Tessera, content: str, words: str) -> None:
    Path("table.csv").write_text(content)
    code, out, err = tessera("graph.json", "table.csv")
    assert (code, out, RUNS) == (2, [], [])
    assert words in err[0]
    assert tessera("graph.json", "table.csv", "--dry-run")[0] == 2


def test_bad_rows_are_left_out_on_request(tessera: Tessera) -> None:
    code, out, err = tessera("graph.json", table(1, 256, 2, 300, 256), "--skip-bad")
    assert (code, RUNS) == (0, [1, 2])
    assert "3 rows left out" in out[0]
    assert len(err) == 2 and err[0].endswith("(and 1 more)")


def test_dry_run_writes_and_runs_nothing(tessera: Tessera) -> None:
    assert tessera("graph.json", table(1, 2), "--dry-run") == (0, ["2 jobs; nothing was run"], [])
    assert not Path("batch").exists() and not RUNS


def test_files_of_rows_are_found_and_part_of_the_key(tessera: Tessera) -> None:
    for place, text in {"input/x.png": "in", "beside/x.png": "beside", "beside/y.png": "y"}.items():
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_text(text)
    absolute = Path("beside/x.png").resolve()
    Path("beside/table.jsonl").write_text(
        "\n".join(json.dumps({"image": n}) for n in ("x.png", str(absolute), "y.png"))
    )
    assert tessera("files.json", "beside/table.jsonl")[0] == 0
    assert [line["outputs"]["2"]["text"] for line in lines()] == [["in"], ["beside"], ["y"]]
    Path("input/x.png").write_text("changed")
    assert tessera("files.json", "beside/table.jsonl")[0] == 0
    assert [line["outputs"]["2"]["text"] for line in lines()] == [["in"], ["beside"], ["y"], ["changed"]]
    Path("beside/table.jsonl").write_text('{"image": "z.png"}')
    code, _, err = tessera("files.json", "beside/table.jsonl")
    assert code == 2 and "line 1" in err[0] and "z.png" in err[0]


def test_folder_of_images_is_a_table(tessera: Tessera) -> None:
    Path("photos").mkdir()
    for name in "ab":
        Path("photos", f"{name}.png").write_text(name)
    assert tessera("files.json", "photos")[0] == 0
    assert [line["outputs"]["2"]["text"] for line in lines()] == [["a"], ["b"]]
    assert tessera("graph.json", "photos")[0] == 2


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


def test_lone_worker_is_used_where_ray_is_not_installed(tessera: Tessera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.app.batch.ray_pool.find_spec", lambda name: None)
    assert tessera("graph.json", table(1, 2), "--workers", 4)[0] == 0
    assert tessera("graph.json", table(1, 2), "--ray", "auto")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["graph.json"],
        ["graph.json", "table.csv", "--retries", "-1"],
        ["graph.json", "table.csv", "--workers", "0"],
        ["graph.json", "table.csv", "--workers", "2", "--ray", "auto"],
        ["graph.json", "table.csv", "--engine", "embedded,http://127.0.0.1:1"],
        ["graph.json", "table.csv", "--model", "x"],
        ["graph.json", "table.csv", "--service", "octoai"],
        ["graph.json", "table.csv", "--set", "9.x=1"],
        ["table.csv", "--service", "nobody"],
        ["absent.json", "table.csv"],
        ["graph.json", "absent.csv"],
    ],
)
def test_wrong_arguments_are_told_in_one_line(tessera: Tessera, arguments: list[str]) -> None:
    table(1)
    code, out, err = tessera(*arguments)
    assert (code, out, len(err)) == (2, [], 1)


def test_disk_that_is_full_from_the_start_is_told(tessera: Tessera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tessera.app.batch.queue.TABLES", TABLES.replace("CREATE TABLE", "PRAGMA max_page_count = 1; CREATE TABLE")
    )
    code, out, err = tessera("graph.json", table(7))
    assert (code, out, len(err)) == (1, [], 1)
    assert "No space left" in err[0]


def test_report_is_sent_once(tessera: Tessera, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(Webhook, "send", lambda hook, report: sent.append(report) or "")
    FAULTS[8] = [ValueError("no such grey")]
    assert tessera("graph.json", table(7, 8), "--webhook", "https://example.com/done", "--track-id", "x")[0] == 1
    (report,) = sent
    assert (report["status"], report["jobs"], report["done"], report["failed"]) == ("failed", 2, 1, 1)
    assert "no such grey" in report["errors"][0]
    assert tessera("graph.json", table(7), "--track-id", "x")[0] == 2


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


def test_queue_prefers_models_that_are_loaded_and_then_those_that_nobody_has(tmp_path: Path) -> None:
    queue = JobQueue(tmp_path / "queue")
    for number, model in enumerate("aabbcc"):
        assert queue.add(str(number), number, model, "") is None
    assert queue.add("3", 9, "a", "") == 3

    def take(model: str | None, *in_use: str) -> str:
        found = queue.take(model, in_use)
        assert found is not None
        return found.model

    assert [take(None), take(None, "a"), take("a", "a", "b")] == ["a", "b", "a"]
    assert [take("a", "a", "b"), take("a", "a", "b", "c"), take("b", "b", "c")] == ["c", "b", "c"]
    assert queue.take("a", ["a"]) is None
    queue.close()
    assert not list(tmp_path.iterdir())


def test_many_things_that_are_wrong_are_counted(tessera: Tessera) -> None:
    code, _, err = tessera("graph.json", table(*range(256, 256 + batch.MOST_TOLD + 5)))
    assert code == 2 and len(err) == batch.MOST_TOLD + 2
