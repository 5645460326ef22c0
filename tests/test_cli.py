"""The command line: what it prints where, its exit codes, and what is left on the disk."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ending import end_of
from graph_nodes import CALLS, CLASSES, node
from PIL import Image
from tessera.app.cli.main import main
from tessera.app.registry import node_classes
from tessera.host import folder_paths
from tessera.host.graph.workflow import read
from tessera.host.nodes.text import PreviewAny
from tessera.host.schema import io
from tessera.host.schema.ui import PreviewText

Outcome = tuple[int, list[str], list[str]]
Tessera = Callable[..., Outcome]

GRAPH = {
    "1": node("Paint", batch=2),
    "2": node("Save", images=["1", 0], filename_prefix="image"),
    "3": node("Show", value="moss"),
}


@pytest.fixture
def tessera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Tessera]:
    """Run the command line in an empty folder, with the nodes of `graph_nodes`: exit code, output, error lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tessera.app.registry.node_classes", lambda: CLASSES)
    CALLS.clear()

    def call(*arguments: Any) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(each) for each in arguments])
        except SystemExit as stopped:
            assert isinstance(stopped.code, int)
            code = stopped.code
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    yield call
    folder_paths.configure()


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A file with GRAPH."""
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(GRAPH))
    return path


def test_run_prints_the_saved_files(tessera: Tessera, graph: Path, tmp_path: Path) -> None:
    saved = [str(tmp_path / "output" / f"image_0000{i}_.png") for i in (1, 2)]
    assert tessera("run", graph) == (0, saved, [])
    assert all(Path(path).exists() for path in saved)


def test_run_prints_one_object(tessera: Tessera, graph: Path, tmp_path: Path) -> None:
    code, out, err = tessera(
        "run", graph, "--json", "--output-dir", tmp_path / "there", "--set", "2.filename_prefix=a/b"
    )
    assert (code, err) == (0, [])
    told = json.loads("".join(out))
    images = [{"path": str(tmp_path / "there" / "a" / f"b_0000{i}_.png")} for i in (1, 2)]
    assert told["outputs"] == {"2": {"images": images}, "3": {"text": ["moss"]}}
    assert told["seconds"] > 0


def test_a_saved_image_runs_again(tessera: Tessera, graph: Path, tmp_path: Path) -> None:
    _, (first, _), _ = tessera("run", graph, "--set", "1.batch=2", "--set", "2.filename_prefix=fern")
    code, out, _ = tessera("run", first)
    assert (code, out) == (0, [str(tmp_path / "output" / f"fern_0000{i}_.png") for i in (3, 4)])
    assert read(out[0]).prompt == read(first).prompt


def test_check_runs_nothing(tessera: Tessera, graph: Path, tmp_path: Path) -> None:
    assert tessera("check", graph) == (0, [f"{graph}: 3 nodes, nothing wrong; outputs: 2, 3"], [])
    assert not (tmp_path / "output").exists()


def test_check_takes_any_model_to_be_there(tessera: Tessera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.app.registry.node_classes", node_classes)
    loads = {
        "1": node("CheckpointLoaderSimple", ckpt_name="nowhere.safetensors"),
        "2": node("LoadImage", image="nowhere.png"),
        "3": node("PreviewImage", images=["2", 0]),
        "4": node("PreviewAny", source=["1", 0]),
    }
    path = tmp_path / "loads.json"
    path.write_text(json.dumps(loads))
    code, _, err = tessera("check", path)
    assert code == 2
    assert ["nowhere.safetensors" in line or "nowhere.png" in line for line in err] == [True, True]
    assert tessera("check", path, "--any-model")[0] == 0
    path.write_text(json.dumps(loads | {"5": node("Nowhere")}))
    assert tessera("check", path, "--any-model")[0] == 2


def test_every_error_is_a_line_and_nothing_runs(tessera: Tessera, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(GRAPH | {"1": node("Paint", batch=9), "4": node("Show", value=["9", 0])}))
    for command in ("run", "check"):
        code, out, err = tessera(command, path)
        assert (code, out) == (2, [])
        assert err == [
            "node 1 Paint, input batch: found 9; expected a whole number from 1 to 4; set it, for example to 1",
            'node 4 Show, input value: linked to node "9", which is not there; connect it anew',
        ]
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["run"], "WORKFLOW"),
        (["walk"], "walk"),
        (["run", "none.json"], "none.json: No such file or directory"),
        (["run", "graph.json", "--set", "1.batch"], "expected NODE.INPUT=VALUE"),
        (["run", "graph.json", "--device", "toaster"], 'device is "toaster"'),
        (["run", "graph.json", "--dtype", "fp5"], 'dtype is "fp5"'),
        (["check", "graph.json", "--output-dir", "x"], "--output-dir"),
    ],
)
def test_a_wrong_call_is_one_line(tessera: Tessera, graph: Path, arguments: list[str], said: str) -> None:
    code, out, err = tessera(*arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert said in err[0]


@pytest.mark.parametrize(
    ("way", "expected"), [("value", 2), ("bug", 2), ("memory", 2), ("full disk", 1), ("interrupt", 130)]
)
def test_exit_codes_keep_what_was_made(tessera: Tessera, tmp_path: Path, way: str, expected: int) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(GRAPH | {"4": node("Broken", way=way), "5": node("Show", value=["4", 0])}))
    code, out, err = tessera("run", path)
    assert (code, len(err)) == (expected, 1)
    assert [Path(line).name for line in out] == ["image_00001_.png", "image_00002_.png"]
    assert all(Path(line).exists() for line in out)


def test_nodes_are_listed(tessera: Tessera) -> None:
    code, out, _ = tessera("nodes")
    assert code == 0
    assert len(out) == len(CLASSES)
    code, out, _ = tessera("nodes", "--json")
    assert json.loads("".join(out))["Number"]["input_order"]["required"] == ["value"]


def test_the_packs_own_nodes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"TesseraSeamlessModel", "KSampler", "SaveImage"} <= set(listed)
    for node_id, info in listed.items():
        assert info["description"], node_id
        for kind in ("required", "optional"):
            for name, (_, options) in info["input"].get(kind, {}).items():
                assert options.get("tooltip"), f"{node_id}.{name}"


def test_help_and_version_load_no_library() -> None:
    script = """
        import sys
        from tessera.app.cli.main import main
        for question in ("--help", "--version"):
            try:
                main([question])
            except SystemExit as done:
                assert not done.code
        heavy = {"torch", "numpy", "PIL", "diffusers", "transformers"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, stdout=subprocess.DEVNULL)


def test_ctrl_c_stops_at_the_next_step_and_keeps_what_was_made(tmp_path: Path) -> None:
    script = """
        import sys, time
        from graph_nodes import CLASSES
        from tessera.app import registry
        from tessera.app.cli.main import main
        from tessera.host import progress
        from tessera.host.schema import io

        class Slow(io.ComfyNode):
            @classmethod
            def define_schema(cls):
                return io.Schema(node_id="Slow", is_output_node=True)

            @classmethod
            def execute(cls):
                print("begun", file=sys.stderr, flush=True)
                bar = progress.ProgressBar(10000)
                for _ in range(10000):
                    time.sleep(0.01)
                    bar.update(1)

        registry.node_classes = lambda: CLASSES | {"Slow": Slow}
        sys.exit(main(["run", "graph.json"]))
    """
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH | {"4": node("Slow")}))
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, err = end_of(process)
    assert (process.returncode, err) == (130, "stopped; what was saved before stays\n")
    assert [Path(line).name for line in out.splitlines()] == ["image_00001_.png", "image_00002_.png"]
    assert len(list((tmp_path / "output").iterdir())) == 2


def told(tessera: Tessera, tmp_path: Path, prompt: dict[str, Any]) -> dict[str, Any]:
    """What `tessera run --json` says of a graph, read as strictly as other languages do."""
    path = tmp_path / "told.json"
    path.write_text(json.dumps(prompt))
    code, out, err = tessera("run", path, "--json")
    assert (code, err) == (0, [])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads("".join(out), parse_constant=refuse)["outputs"]


@pytest.mark.parametrize(
    ("value", "text"),
    [("moss", "moss"), (3, "3"), (2.5, "2.5"), (True, "True"), ([1, "a"], '[\n    1,\n    "a"\n]'), (None, "None")],
)
def test_preview_any_writes_values_as_comfyui_does(value: Any, text: str) -> None:
    output = PreviewAny.execute(value)
    assert output.args == (text,)
    assert output.ui is not None
    assert PreviewText(text).as_dict() == output.ui.as_dict()  # pyright: ignore[reportAttributeAccessIssue]


def test_preview_any_writes_tensors_and_what_cannot_be_written() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("mute")

    tensor = torch.arange(2000.0)
    plain = str(tensor)
    text = PreviewAny.execute({"samples": tensor}).args[0]
    assert "5.0000e+00," in text and "1.9940e+03" in text
    assert "6.0000e+00" not in text and "1.9930e+03" not in text
    assert str(tensor) == plain
    assert "could not be serialized" in PreviewAny.execute(Mute()).args[0]


class Measures(io.ComfyNode):
    """Gives values of every kind, and shows nothing."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        outputs: list[io.Output] = [io.Float.Output(display_name="ratio"), io.Float.Output(display_name="ratio")]
        kinds = [io.Int, io.Boolean, io.String, io.Image]
        outputs += [kind.Output(display_name=kind.io_type.lower()) for kind in kinds]
        return io.Schema(node_id="Measures", outputs=outputs)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(math.inf, np.float32(0.5), 7, True, "moss", torch.zeros(1, 1, 1, 3))


def test_every_text_and_number_is_told(tessera: Tessera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.app.registry.node_classes", lambda: CLASSES | {"Measures": Measures})
    outputs = told(tessera, tmp_path, {"1": node("Measures"), "2": node("Show", value=["1", 4])})
    assert outputs["1"] == {"ratio": [None], "ratio 2": [0.5], "int": [7], "boolean": [True], "string": ["moss"]}
    assert outputs["2"] == {"text": ["moss"]}


def test_findings_are_told_though_nobody_uses_them(
    tessera: Tessera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tessera.app.registry.node_classes", node_classes)
    (tmp_path / "input").mkdir(exist_ok=True)
    Image.linear_gradient("L").resize((32, 24)).save(tmp_path / "input" / "image.png")
    inputs = {"columns": 2, "rows": 2, "repeat": "straight"}
    prompt = {
        "1": node("LoadImage", image="image.png"),
        "2": node("TesseraSeamCheck", images=["1", 0], **inputs),
        "3": node("PreviewAny", source=["2", 2]),
    }
    outputs = told(tessera, tmp_path, prompt)
    assert list(outputs) == ["2", "3"]
    (ratio,), (report,) = outputs["2"]["seam_ratio"], outputs["2"]["report"]
    assert outputs["2"]["text"] == [report]
    assert ratio > 5
    assert "SR" in report
    assert outputs["2"]["images"][0]["path"].endswith(".png")
    assert outputs["3"]["text"] == [str(ratio)]


def test_version_is_known_without_an_installation(tessera: Tessera, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    code, out, err = tessera("--version")
    written = (Path(__file__).parents[1] / "pyproject.toml").read_text().partition('\nversion = "')[2].partition('"')[0]
    assert (code, out, err) == (0, [f"tessera {written} (not installed)"], [])
