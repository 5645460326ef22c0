"""`tessera batch`: what becomes of rows, and what is told of those that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from batch.shades import FAULTS, RUNS, Tessera, lines, table
from PIL import Image
from tessera.app.batch import batch
from tessera.app.batch.queue import JobQueue
from tessera.app.cli.webhook import Webhook


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


def test_jobs_of_one_model_follow_one_another(tessera: Tessera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.app.batch.plan.LOADED", {"IMAGE"})
    rows = "\n".join(f"1,{model},{i}" for i, model in enumerate("abcabcab"))
    Path("table.csv").write_text("1.grey,1.model,2.filename_prefix\n" + rows + "\n")
    assert tessera("graph.json", "table.csv")[0] == 0
    assert [line["inputs"]["1.model"] for line in lines()] == list("aaabbbcc")


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
    assert {path.name for path in Path("batch").iterdir()} == {"batch.json", ".lock"}
    assert tessera("graph.json", "table.csv", "--dry-run")[0] == 2


def test_results_of_rows_that_are_gone_stay_and_are_not_counted(tessera: Tessera) -> None:
    assert tessera("graph.json", table(7, 8, 9))[0] == 0
    code, out, _ = tessera("graph.json", table(8))
    assert (code, out[0].split(";")[0]) == (0, "1 of 1 jobs done, 1 of them before")
    assert len(lines()) == 3


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


def test_report_is_sent_once(tessera: Tessera, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(Webhook, "send", lambda hook, report: sent.append(report) or "")
    FAULTS[8] = [ValueError("no such grey")]
    assert tessera("graph.json", table(7, 8), "--webhook", "https://example.com/done", "--track-id", "x")[0] == 1
    (report,) = sent
    assert (report["status"], report["jobs"], report["done"], report["failed"]) == ("failed", 2, 1, 1)
    assert "no such grey" in report["errors"][0]
    assert tessera("graph.json", table(7), "--track-id", "x")[0] == 2


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


def test_a_table_that_is_wrong_throughout_is_not_read_to_its_end(
    tessera: Tessera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_WRONG", 3)
    code, _, err = tessera("graph.json", table(1, *[999] * 10))
    assert code == 2 and "(and 2 more)" in err[0]
    assert err[1] == "3 of the first 4 rows are wrong; mend them, or add --skip-bad"
