"""`tessera run --engine URL` and `tessera check --engine URL`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tessera
from batch.fake_comfyui import FakeComfyUI, serving
from batch.test_server_engine import GRAPH
from tessera.app.cli.main import main
from tessera.app.engines.errors import EngineLost


@pytest.fixture
def comfyui() -> Iterator[FakeComfyUI]:
    with serving(FakeComfyUI()) as fake:
        yield fake


def test_server_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = tmp_path / "graph.json"
    graph.write_text('{"1": {"class_type": "Show", "inputs": {"value": "moss"}}}')
    assert main(["run", str(graph), "--engine", "http://127.0.0.1:9"]) == 1
    assert "127.0.0.1:9" in capsys.readouterr().err
    for wrong in ("ftp://host", "http://", "host:8188", "http://host:0"):
        assert main(["check", str(graph), "--engine", wrong]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert wrong in line


def test_run_saves_what_the_server_made(
    comfyui: FakeComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps(GRAPH))
    for number in (1, 2):
        command = [
            "run",
            str(graph),
            "--engine",
            comfyui.url,
            "--output-dir",
            str(tmp_path / "out"),
            "--set",
            "1.seed=9",
        ]
        assert main(command) == 0
        path = tmp_path / "out" / f"tile_0000{number}_.png"
        assert capsys.readouterr().out.splitlines() == [str(path)]
        assert path.is_file()
    assert comfyui.posts[-1]["prompt"]["1"]["inputs"]["seed"] == 9
    assert main(["check", str(graph), "--engine", comfyui.url, "--set", "1.steps=0"]) == 2


def test_file_of_the_editor_is_converted_by_what_the_server_says(comfyui: FakeComfyUI, tmp_path: Path) -> None:
    foreign = {"id": 5, "type": "Foreign", "outputs": [{"links": [1]}], "widgets_values": [7, "hard"]}
    save = {
        "id": 3,
        "type": "Save",
        "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
        "widgets_values": ["x"],
    }
    document = {"nodes": [foreign, save], "links": [[1, 5, 0, 3, 0, "IMAGE"]]}
    images = tessera.run(document, {"5.amount": 8}, output_dir=tmp_path, engine=comfyui.url)
    assert comfyui.posts[0]["prompt"]["5"]["inputs"] == {"amount": 8, "mode": "hard"}
    assert images.paths == [str(tmp_path / "x_00001_.png")]
    assert images.outputs == {"3": {"images": [{"path": images.paths[0]}]}}
    assert images[0].size == (8, 8)
    with pytest.raises(EngineLost):
        tessera.run(document, engine="http://127.0.0.1:9")
