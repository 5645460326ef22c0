"""Whatever is wrong with what a user gives is a line or a few, and exit code 2."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_nodes import node
from PIL import Image
from tessera.app.cli.main import main
from tessera.host import errors, folder_paths
from tessera.host.errors import GraphError, Hints, first, reading
from tessera.host.graph import workflow
from tessera.host.graph.failures import explain, input_is_at_fault
from tessera.host.graph.validation import validate
from tessera.host.schema import io
from tessera.host.schema.object_info import ObjectInfo

Tessera = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def tessera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Tessera]:
    """Run a graph in an empty folder with one image: exit code, output, error lines."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input" / "sub").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "input" / "sub" / "moss.png")

    def call(graph: Any, *options: Any, command: str = "run") -> tuple[int, list[str], list[str]]:
        (tmp_path / "graph.json").write_text(json.dumps(graph) if isinstance(graph, dict) else graph)
        capsys.readouterr()
        code = main([command, "graph.json", *map(str, options)])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    yield call
    folder_paths.configure()


def loaded(image: Any, prefix: Any = "image") -> dict[str, Any]:
    save = node("SaveImage", images=["1", 0], filename_prefix=prefix)
    return {"1": node("LoadImage", image=image), "2": save}


def test_a_thousand_errors_are_twenty_lines_and_few_comparisons(
    tessera: Tessera, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def count(name: str, known: Any, **options: Any) -> list[str]:
        compared.append(name)
        return difflib.get_close_matches(name, known, **options)

    monkeypatch.setattr(errors, "get_close_matches", count)
    for graph in (
        {f"n{i}": node("PreviewImage", images=[f"m{i}", 0]) for i in range(1234)},
        {f"n{i}": node(f"PreviewImages{i}", images=["1", 0]) for i in range(1234)},
        {f"n{i}": node("SaveImage", pictures=3, filename_prefix=f"{i}") for i in range(1234)},
        {"settings": node("PreviewAny", source=1)},
    ):
        compared.clear()
        options = [word for i in range(1234) for word in ("--set", f"set{i}.source=1")] if len(graph) == 1 else []
        code, _, lines = tessera(graph, *options, command="check")
        assert (code, len(lines), lines[-1]) == (2, 21, "and 1,214 more")
        assert len(compared) <= errors.MOST_LINES
    with pytest.raises(GraphError) as refused:
        raise GraphError(["a"] * 30)
    assert len(refused.value.lines) == 30
    assert str(refused.value).endswith("a\nand 10 more")
    assert first(["a"] * 20) == ["a"] * 20


def test_a_line_of_reroutes_ends(tessera: Tessera) -> None:
    def drawing(count: int) -> dict[str, Any]:
        load = {
            "id": 0,
            "type": "LoadImage",
            "outputs": [{"type": "IMAGE"}],
            "widgets_values": ["sub/moss.png", "image"],
        }
        lines = [
            {"id": i, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": i}], "outputs": [{"type": "*"}]}
            for i in range(1, count)
        ]
        show = {"id": count, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": count}]}
        links = [[i, i - 1, 0, i, 0, "IMAGE"] for i in range(1, count + 1)]
        return {"nodes": [load, *lines, show], "links": links}

    assert tessera(drawing(1000), command="check")[0] == 0
    code, _, lines = tessera(drawing(1001), command="check")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("node 1001 PreviewImage, input images: more than 1000 reroutes")


def test_a_name_is_looked_for_once() -> None:
    hints, known = Hints(), ["moss", "fern"]
    assert {hints.closest("mos", known) for _ in range(100)} == {'; did you mean "moss"?'}
    assert hints.closest("fren", known) == '; did you mean "fern"?'


@pytest.mark.parametrize("image", [None, 5, 2.5, True, {}, {"a": 1}, ["1"], ["1", 2, 3], "", "\0", "a" * 300, "../x"])
def test_what_is_no_name_of_an_image_is_said(tessera: Tessera, image: Any) -> None:
    for graph in (loaded(image), {"1": node("LoadImageMask", image=image, channel="red"), "2": loaded(image)["2"]}):
        code, out, lines = tessera(graph)
        assert (code, out) == (2, [])
        assert lines[0].startswith(f"node 1 {graph['1']['class_type']}, input image: ")
        assert not [word for word in ("Error", "object", "attribute") if word in lines[0]]


@pytest.mark.parametrize("value", [None, [], {}, "x" * 5000, 1e400, -(10**400), "1e5", True])
@pytest.mark.parametrize("name", ["seed", "steps", "cfg", "sampler_name", "model", "denoise"])
def test_values_of_other_types_are_said(tessera: Tessera, name: str, value: Any) -> None:
    graph = loaded("sub/moss.png") | {"3": node("KSampler", **{name: value}), "4": node("PreviewAny", source=["3", 0])}
    code, _, lines = tessera(graph, command="check")
    assert code == 2
    assert all(line.startswith("node 3 KSampler, input ") for line in lines)


DEEP = '{"a":' * 600 + "1" + "}" * 600
UI = {
    "nodes": [
        {"id": 1, "type": "LoadImage", "outputs": [{"type": "IMAGE"}], "widgets_values": ["sub/moss.png", "image"]},
        {
            "id": 2,
            "type": "SaveImage",
            "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
            "widgets_values": ["image"],
        },
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
}


def test_what_is_nested_deeply_beside_the_nodes_does_no_harm(tessera: Tessera, tmp_path: Path) -> None:
    graph = json.dumps(UI)[:-1] + f', "extra": {DEEP}}}'
    code, out, lines = tessera(graph, "--set", "2.filename_prefix=deep")
    assert (code, out, lines) == (0, [str(tmp_path / "output" / "deep_00001_.png")], [])


def test_what_is_nested_too_deeply_is_a_line(tessera: Tessera) -> None:
    for depth in (900, 5000, 200_000):
        deep = '{"a":' * depth + "1" + "}" * depth
        for graph in (
            f'{{"1": {{"class_type": "PreviewAny", "inputs": {{"source": {deep}}}}}}}',
            json.dumps(UI)[:-1] + f', "definitions": {deep}}}',
            "[" * depth + "]" * depth,
        ):
            code, _, lines = tessera(graph, "--set", "2.filename_prefix=deep")
            assert code in (0, 2)
            assert len(lines) == (1 if code else 0)


def test_a_setting_changes_the_graph_that_is_saved_and_not_the_one_that_was_given() -> None:
    info = ObjectInfo({"Paint": type("Paint", (io.ComfyNode,), {"define_schema": classmethod(_schema)})})
    drawing = {"nodes": [{"id": 1, "type": "Paint", "widgets_values": [7]}], "links": []}
    given = workflow.Workflow({"1": node("Paint", size=7)}, drawing)
    changed = workflow.assign(given, "1", "size", 9, info["Paint"])
    assert changed.prompt["1"]["inputs"] == {"size": 9}
    assert changed.ui_graph is not None
    assert changed.ui_graph["nodes"][0]["widgets_values"] == [9]
    assert drawing["nodes"][0]["widgets_values"] == [7]


def _schema(cls: type) -> io.Schema:
    return io.Schema(node_id="Paint", inputs=[io.Int.Input("size", default=1)], outputs=[io.Image.Output()])


@pytest.mark.parametrize("raised", [KeyError("a"), TypeError("b"), AttributeError("c"), MemoryError(), OverflowError()])
def test_whatever_reading_raises_is_a_line_with_its_cause(raised: Exception) -> None:
    with pytest.raises(GraphError) as refused, reading("moss.json"):
        raise raised
    (line,) = refused.value.lines
    assert line.startswith("moss.json: ")
    assert refused.value.__cause__ is raised


def test_the_cause_is_kept_for_debugging(tessera: Tessera, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("moss")

    monkeypatch.setattr(workflow, "convert", fail)
    code, _, lines = tessera(UI, "--debug")
    assert code == 2
    assert "LookupError: moss" in caplog.text
    assert "graph.json: not what its format says" in lines[-1]


@pytest.mark.parametrize("kind", ["output", "input", "models"])
@pytest.mark.parametrize("place", ["file", "file/below", "a" * 300, "a/" + "b" * 300 + "/c", "nul\0"])
def test_folders_that_cannot_be_are_refused_before_the_run(
    tessera: Tessera, tmp_path: Path, kind: str, place: str
) -> None:
    (tmp_path / "file").touch()
    code, out, lines = tessera(loaded("sub/moss.png"), f"--{kind}-dir", place)
    assert (code, out, len(lines)) == (2, [], 1)
    assert lines[0].startswith(f"the {kind} folder ")


@pytest.mark.parametrize("prefix", ["a" * 300, "a" * 300 + "/b", "\u00e9" * 130, None, 5, "a\0b"])
def test_prefixes_that_are_no_names_are_refused_before_the_run(tessera: Tessera, prefix: Any) -> None:
    code, out, lines = tessera(loaded("sub/moss.png", prefix), command="check")
    if isinstance(prefix, str):
        assert (code, len(lines)) == (2, 1)
        assert lines[0].startswith("node 2 SaveImage, input filename_prefix: ")
    else:
        assert code == 0, "as in ComfyUI, what is typed becomes text"


def test_an_output_folder_that_becomes_a_file_is_a_line(tessera: Tessera, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "taken").touch()
    code, out, lines = tessera(loaded("sub/moss.png", "taken/moss"))
    assert (code, out, len(lines)) == (2, [], 1)
    assert lines[0].startswith("node 2 SaveImage: ")


@pytest.mark.parametrize("place", ["pipe", "/dev/zero", "input", "none", "a" * 300, "nul\0"])
def test_workflows_that_are_no_files_are_refused(tessera: Tessera, tmp_path: Path, place: str, capsys: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    for command in ("run", "check"):
        assert main([command, place]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(errors.one_line(place)[:50])


def test_an_image_that_is_a_pipe_is_refused(tessera: Tessera, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "input" / "pipe.png")
    code, _, lines = tessera(loaded("pipe.png"))
    assert (code, len(lines)) == (2, 1)
    assert "pipe.png" in lines[0]


def test_a_workflow_of_too_many_values_is_refused_before_it_fills_the_memory(tessera: Tessera) -> None:
    code, _, lines = tessera('{"1": [' + "[]," * 5_000_001 + "1]}")
    assert (code, len(lines)) == (2, 1)
    assert "more than 10000000 values" in lines[0]


@pytest.mark.skipif(sys.platform == "win32", reason="there they are ordinary names")
def test_names_from_windows_mean_what_they_mean_there(tessera: Tessera, tmp_path: Path) -> None:
    code, (path,), lines = tessera(loaded("sub\\moss.png", "textures\\green\\moss"))
    assert (code, lines) == (0, [])
    assert path == str(tmp_path / "output" / "textures" / "green" / "moss_00001_.png")
    for prefix in ("..\\moss", "C:\\moss", "c:moss", "\\moss", "\\\\server\\share\\moss", "a\\..\\..\\moss", "D:/moss"):
        graph = loaded("sub\\moss.png", prefix)
        for class_type in ("SaveImage", "TesseraSaveImage"):
            code, out, lines = tessera(graph | {"2": graph["2"] | {"class_type": class_type}}, command="check")
            assert (code, out, len(lines)) == (2, [], 1), prefix
            assert "filename_prefix" in lines[0]
    for name in ("..\\graph.json", "C:\\sub\\moss.png", "\\sub\\moss.png", "sub\\..\\..\\graph.json"):
        assert tessera(loaded(name))[0] == 2, name


def test_models_are_found_by_the_names_of_either_system(tmp_path: Path) -> None:
    (tmp_path / "loras" / "sd").mkdir(parents=True)
    (tmp_path / "loras" / "sd" / "moss.safetensors").touch()
    folder_paths.configure(models_dir=str(tmp_path))
    path = str(tmp_path / "loras" / "sd" / "moss.safetensors")
    for name in ("sd/moss.safetensors", "sd\\moss.safetensors", "..\\sd\\moss.safetensors"):
        assert folder_paths.get_full_path("loras", name) == path
    for name in ("C:\\loras\\sd\\moss.safetensors", "moss.safetensors", "\\\\server\\moss.safetensors"):
        assert folder_paths.get_full_path("loras", name) is None
    folder_paths.configure()


class Choice(io.ComfyNode):
    """Chooses a file, listed as either system lists it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        options = ["sd/moss", "xl\\fern"]
        return io.Schema(node_id="Choice", is_output_node=True, inputs=[io.Combo.Input("file", options=options)])

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput()


def test_choices_are_found_by_the_names_of_either_system() -> None:
    info = ObjectInfo({"Choice": Choice})
    for typed, option in {"sd\\moss": "sd/moss", "xl/fern": "xl\\fern", "sd/moss": "sd/moss"}.items():
        checked, _ = validate({"1": node("Choice", file=typed)}, info)
        assert checked["1"]["inputs"]["file"] == option
    with pytest.raises(GraphError, match="found .*; expected one of"):
        validate({"1": node("Choice", file="sd\\\\fern")}, info)


def test_a_processor_without_memory_asks_for_a_smaller_image() -> None:
    for shape in ((2**50,), (2**62, 2**62)):
        with pytest.raises(RuntimeError) as raised:
            torch.empty(shape)
        assert explain(raised.value).startswith("out of memory; take a smaller image or batch")
        assert input_is_at_fault(raised.value)


def test_messages_about_a_request_show_no_secrets_of_a_link_and_wait_for_no_pipe(tmp_path: Path, capsys: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"model_id": "flux", "init_image": "https://me:word@example.com/a.png?key=part"}))
    assert main(["import", "modelslab", str(tmp_path / "pipe"), "-o", str(tmp_path / "w.json")]) == 2
    assert "a pipe" in capsys.readouterr().err
    code = main(["import", "modelslab", str(body), "-o", str(tmp_path / "w.json")])
    said = capsys.readouterr()
    assert code in (0, 2)
    assert not [secret for secret in ("word", "key", "part") if secret in said.err]


def test_a_file_with_the_name_of_a_default_folder_does_no_harm(tessera: Tessera, tmp_path: Path) -> None:
    (tmp_path / "models").touch()
    assert tessera(loaded("sub/moss.png"))[0] == 0
    (tmp_path / "output").rename(tmp_path / "other")
    (tmp_path / "output").touch()
    code, out, lines = tessera(loaded("sub/moss.png"))
    assert (code, out, len(lines)) == (2, [], 1)
    assert lines[0].startswith("the output folder ")
