"""`tessera.run`: the command line's `run`, from Python."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tessera
from graph_nodes import CALLS, CLASSES, node
from naming import naming
from PIL import Image
from tessera.app.api import GraphError, NodeError, run
from tessera.app.cli.main import main
from tessera.app.engines.errors import EngineLost
from tessera.host import folder_paths, progress

GRAPH = {
    "1": node("Paint", batch=2),
    "2": node("Save", images=["1", 0], filename_prefix="image"),
    "3": node("Number", value=4, text="moss"),
    "4": node("Show", value=["3", 1]),
}


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, and the nodes of `graph_nodes`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tessera.app.registry.node_classes", lambda: CLASSES)
    CALLS.clear()
    yield tmp_path
    folder_paths.configure()


def texture(seed: int) -> dict[str, Any]:
    """A tiny image of the demo model."""
    sampler = {"model": ["1", 0], "seed": seed, "steps": 2, "cfg": 2.0, "sampler_name": "euler_ancestral"}
    sampler |= {"scheduler": "normal", "denoise": 1.0, "positive": ["2", 0], "negative": ["2", 0]}
    return {
        "1": node("TesseraDemoCheckpoint", name="texture-sd"),
        "2": node("CLIPTextEncode", clip=["1", 1], text="teal stripes"),
        "3": node("EmptyLatentImage", width=32, height=32, batch_size=1),
        "4": node("KSampler", **sampler, latent_image=["3", 0]),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="a"),
    }


def test_four_lines_of_python_run_a_workflow_file(tmp_path: Path) -> None:
    (tmp_path / "workflow.json").write_text(json.dumps(texture(1)))
    script = """
from tessera.app import api as tessera
images = tessera.run("workflow.json", {"2.text": "moss"})
print(len(images), images[0].size)
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1 (32, 32)\n", "")
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["a_00001_.png"]


def test_it_saves_what_the_command_line_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(texture(1)))
    assert main(["run", str(path), "--set", "4.seed=7", "--json", "--output-dir", str(tmp_path / "one")]) == 0
    told = json.loads(capsys.readouterr().out)
    for workflow in (path, str(path), texture(1)):
        images = run(workflow, {"4.seed": 7}, output_dir=tmp_path / "two")
        (printed,) = told["outputs"]["6"]["images"]
        assert Path(images.paths[-1]).read_bytes() == Path(printed["path"]).read_bytes()
        assert images.outputs["6"] == {"images": [{"path": images.paths[0]}]}
        assert {key: images.outputs[key] for key in images.outputs if key != "6"} == {
            key: told["outputs"][key] for key in told["outputs"] if key != "6"
        }
    assert (capsys.readouterr()) == ("", "")
    assert len(list((tmp_path / "two").iterdir())) == 3


def test_inside_comfyui_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workflow.json").write_text(json.dumps(texture(1)))
    script = """
import tessera.contract
tessera.contract.choose("comfyui")
from tessera.app.api import run
try:
    run("workflow.json")
except RuntimeError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert all(host in ran.stdout for host in ("comfyui", "embedded"))
    assert not (tmp_path / "output").exists()


def test_results_are_a_sequence_of_images(nodes: Path) -> None:
    results = run(GRAPH)
    assert results.paths == [str(nodes / "output" / f"image_0000{i}_.png") for i in (1, 2)]
    assert results.outputs["4"] == {"text": ["moss"]}
    assert results.outputs["2"] == {"images": [{"path": path} for path in results.paths]}
    assert results.seconds > 0
    assert len(results) == len(results[:]) == len(list(results)) == 2
    assert all(isinstance(image, Image.Image) and image.size == (6, 4) for image in results)
    assert np.asarray(results[-1]).tolist() == np.asarray(Image.open(results.paths[1])).tolist()
    with pytest.raises(IndexError):
        results[2]


def test_settings_are_values_of_python(nodes: Path) -> None:
    graph = json.loads(json.dumps(GRAPH))
    settings = {"3.value": np.int64(7), "3.text": Path("a") / "b", "2.images": ("1", 0)}
    assert run(graph, settings).outputs["4"] == {"text": [os.path.join("a", "b")]}
    assert graph == GRAPH


@pytest.mark.parametrize(
    ("workflow", "options", "parts"),
    [
        ("none.json", {}, ["none.json"]),
        ({}, {}, ["workflow"]),
        (GRAPH | {"5": object()}, {}, ["the workflow", "object"]),
        (GRAPH, {"settings": {"3.valu": 7}}, ["3.valu", "value"]),
        (GRAPH, {"settings": {"9.value": 7}}, ["9.value"]),
        (GRAPH, {"settings": {"value": 7}}, ["value", "NODE.INPUT"]),
        (GRAPH, {"settings": {"3.value": 99}}, ["node 3 Number", "value", "99"]),
        (GRAPH, {"settings": {"3.value": math.nan}}, ["node 3 Number", "value"]),
        (GRAPH, {"settings": {"3.value": {1, 2}}}, ["settings", "set"]),
        (GRAPH, {"device": "toaster"}, ["device", "toaster"]),
        (GRAPH, {"dtype": "fp5"}, ["dtype", "fp5"]),
    ],
)
def test_wrong_input_is_an_error_before_anything_runs(
    nodes: Path, workflow: Any, options: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(GraphError, match=naming(*parts)):
        run(workflow, **options)
    assert not CALLS
    assert not (nodes / "output").exists()


@pytest.mark.parametrize(("way", "bad_input"), [("value", True), ("full disk", False)])
def test_a_node_that_fails_is_an_error_and_what_was_saved_stays(nodes: Path, way: str, bad_input: bool) -> None:
    with pytest.raises(NodeError, match=naming("node 5 Broken")) as failed:
        run(GRAPH | {"5": node("Broken", way=way), "6": node("Show", value=["5", 0])})
    assert failed.value.bad_input == bad_input
    assert len(list((nodes / "output").iterdir())) == 2
    assert len(run(GRAPH)) == 2


@pytest.mark.parametrize("stop", [lambda: signal.raise_signal(signal.SIGINT), progress.interrupt_current_processing])
def test_ctrl_c_is_keyboard_interrupt_and_the_next_call_runs(nodes: Path, stop: Any) -> None:
    def on_progress(node_id: str, value: float, maximum: float) -> None:
        if node_id == "3":
            stop()

    with pytest.raises(KeyboardInterrupt):
        run(GRAPH, progress=on_progress)
    assert len(list((nodes / "output").iterdir())) == 2
    assert run(GRAPH).outputs["4"] == {"text": ["moss"]}


def test_progress_is_told_by_node(tmp_path: Path) -> None:
    told: list[tuple[str, float, float]] = []
    run(texture(1), output_dir=tmp_path, progress=lambda *each: told.append(each))
    begun = [node_id for node_id, value, _ in told if value == 0]
    assert sorted(begun) == ["1", "2", "3", "4", "5", "6"]
    assert [each for each in told if each[0] == "4"] == [("4", 0, 1), ("4", 1, 2), ("4", 2, 2)]
    count = len(told)
    run(texture(2), output_dir=tmp_path)
    assert len(told) == count


@pytest.mark.parametrize("at", [("3", 0, 1), ("4", 1, 2)], ids=["node", "step"])
def test_what_progress_raises_ends_the_run(tmp_path: Path, at: tuple[str, float, float]) -> None:
    class EnoughError(Exception):
        pass

    def on_progress(*each: Any) -> None:
        if each == at:
            raise EnoughError

    with pytest.raises(EnoughError):
        run(texture(1), output_dir=tmp_path, progress=on_progress)
    assert list(tmp_path.iterdir()) == []
    assert len(run(texture(1), output_dir=tmp_path)) == 1


def test_what_was_loaded_stays_and_all_else_runs_again(nodes: Path) -> None:
    graph = GRAPH | {"5": node("Add", a=["3", 0], b=["3", 0]), "6": node("Show", value=["5", 0])}
    results = [run(graph) for _ in range(2)]
    assert CALLS == ["3", "Add", "Add"]
    assert results[0].outputs.keys() == results[1].outputs.keys()
    assert [Path(path).name for each in results for path in each.paths] == [f"image_0000{i}_.png" for i in (1, 2, 3, 4)]
    run(graph, models_dir="elsewhere")
    assert CALLS == ["3", "Add", "Add", "3", "Add"]


def test_folders_are_those_of_each_call(nodes: Path) -> None:
    for name in ("a", "b", "a"):
        results = run(GRAPH, output_dir=name)
        assert {Path(path).parent for path in results.paths} == {nodes / name}
    assert [len(list((nodes / name).iterdir())) for name in ("a", "b")] == [4, 2]


def test_calls_of_several_threads_wait_for_each_other(nodes: Path) -> None:
    paths: dict[str, list[str]] = {}

    def call(name: str) -> None:
        paths[name] = run(GRAPH, output_dir=name).paths

    threads = [threading.Thread(target=call, args=[str(i)]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == {str(i): [str(nodes / str(i) / f"image_0000{j}_.png") for j in (1, 2)] for i in range(4)}


def test_the_package_offers_what_runs_graphs() -> None:
    assert (tessera.run, tessera.GraphError, tessera.NodeError) == (run, GraphError, NodeError)
    assert tessera.EngineLost is EngineLost
    with pytest.raises(AttributeError, match="walk"):
        _ = tessera.walk
