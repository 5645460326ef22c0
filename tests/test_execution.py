"""Graphs run: what is needed, once, cached, mapped over lists, and stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_nodes import CALLS, CLASSES, INFO, Clock, node
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import naming
from PIL import Image
from tessera.host import folder_paths, progress
from tessera.host.errors import NodeError
from tessera.host.graph.execution import Cache, Run
from tessera.host.graph.validation import validate
from tessera.host.graph.workflow import Prompt, read
from tessera.host.schema.inputs import FolderType
from tessera.host.schema.node import ComfyNode, NodeOutput, Schema
from tessera.host.schema.object_info import ObjectInfo
from tessera.host.schema.ui import ImageSaveHelper, PreviewImage


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> Iterator[Path]:
    """Empty folders for each test, and no call counted yet."""
    CALLS.clear()
    folder_paths.configure(*(str(tmp_path / name) for name in ("models", "input", "output", "temp")))
    yield tmp_path
    folder_paths.configure()


def run(prompt: Prompt, cache: Cache | None = None, **options: Any) -> Run:
    """Check a graph and run it."""
    checked, outputs = validate(prompt, INFO)
    started = Run(checked, outputs, INFO, cache or Cache(), **options)
    started.start()
    return started


def text_of(prompt: Prompt, cache: Cache | None = None) -> list[str]:
    """What node "0", a Show, shows."""
    return run(prompt, cache).ui["0"]["text"]


SHARED = {
    "1": node("Number", value=4),
    "2": node("Add", a=["1", 0], b=["1", 0]),
    "0": node("Show", value=["2", 0]),
    "9": node("Number", value=9),
}


def test_only_what_is_needed_runs_and_each_node_once() -> None:
    assert text_of(SHARED) == ["8"]
    assert CALLS == ["1", "Add"]


def test_order_of_the_file_does_not_matter() -> None:
    assert text_of(dict(reversed(SHARED.items()))) == ["8"]
    assert CALLS == ["1", "Add"]


@pytest.mark.parametrize("takes_all", [False, True])
def test_inputs_that_a_node_does_not_have_may_be_linked_to_nothing(takes_all: bool) -> None:
    class Final(CLASSES["Show"]):
        @classmethod
        def define_schema(cls) -> Schema:
            made = super().define_schema()
            made.accept_all_inputs = takes_all
            return made

        @classmethod
        def execute(cls, value: Any, **others: Any) -> NodeOutput:
            assert others == ({"gone": ["77", 0]} if takes_all else {})
            return super().execute(value)

    info = ObjectInfo(CLASSES | {"Show": Final})
    checked, outputs = validate(SHARED | {"0": node("Show", value=["2", 0], gone=["77", 0])}, info)
    done = Run(checked, outputs, info)
    done.start()
    assert done.ui["0"]["text"] == ["8"]


def test_a_second_run_repeats_only_what_changed() -> None:
    cache = Cache()
    text_of(SHARED, cache)
    assert text_of(SHARED, cache) == ["8"]
    assert CALLS == ["1", "Add"]
    changed = SHARED | {"2": node("Add", a=["1", 0], b=5)}
    assert text_of(changed, cache) == ["9"]
    assert CALLS == ["1", "Add", "Add"]


def test_what_a_run_did_not_use_leaves_the_cache() -> None:
    cache = Cache()
    text_of(SHARED, cache)
    text_of({"0": node("Show", value=3)}, cache)
    text_of(SHARED, cache)
    assert CALLS == ["1", "Add", "1", "Add"]


def test_outputs_that_rest_keep_their_results() -> None:
    cache = Cache()
    prompt = SHARED | {"3": node("Number", value=5), "4": node("Show", value=["3", 0])}
    run(prompt, cache)
    CALLS.clear()
    checked, _ = validate(prompt, INFO)
    Run(checked, ["4"], INFO, cache, resting=["0"]).start()
    run(prompt, cache)
    assert not CALLS
    Run(checked, ["4"], INFO, cache).start()
    run(prompt, cache)
    assert CALLS, "what neither runs nor rests is forgotten"


def test_a_declaration_is_made_once_for_checks_and_runs() -> None:
    """Some look through folders of models."""

    class Counted(CLASSES["Number"]):
        made = 0

        @classmethod
        def define_schema(cls) -> Schema:
            cls.made += 1
            return super().define_schema()

    info, cache = ObjectInfo(CLASSES | {"Number": Counted}), Cache()
    for value in (4, 5):
        checked, outputs = validate(SHARED | {"1": node("Number", value=value)}, info)
        Run(checked, outputs, info, cache).start()
    assert Counted.made == 1


def test_a_node_that_knows_its_id_does_not_share_with_its_twin() -> None:
    twins = {"1": node("Number", value=4), "2": node("Number", value=4), "3": node("Add", a=["1", 0], b=["2", 0])}
    assert text_of(twins | {"0": node("Show", value=["3", 0])}) == ["8"]
    assert CALLS == ["1", "2", "Add"]


def test_twins_share_a_result_unless_they_are_not_idempotent() -> None:
    same = {"1": node("Spread", count=2), "2": node("Total", values=["1", 0], scale=1)}
    adds = {"3": node("Add", a=["2", 0], b=1), "4": node("Add", a=["2", 0], b=1)}
    text_of(same | adds | {"5": node("Add", a=["3", 0], b=["4", 0]), "0": node("Show", value=["5", 0])})
    assert CALLS == ["Add", "Add"]
    CALLS.clear()
    text_of(
        {"1": node("Once"), "2": node("Once"), "3": node("Add", a=["1", 0], b=["2", 0])}
        | {"0": node("Show", value=["3", 0])}
    )
    assert CALLS == ["Once", "Once", "Add"]


def test_a_fingerprint_decides_about_running_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, prompt = Cache(), {"1": node("Clock"), "0": node("Show", value=["1", 0])}
    monkeypatch.setattr(Clock, "now", 1.0)
    assert [text_of(prompt, cache), text_of(prompt, cache)] == [["1.0"], ["1.0"]]
    assert CALLS == ["Clock"]
    monkeypatch.setattr(Clock, "now", 2.0)
    assert text_of(prompt, cache) == ["2.0"]
    monkeypatch.setattr(Clock, "now", math.nan)
    text_of(prompt, cache)
    text_of(prompt, cache)
    assert CALLS == ["Clock"] * 4


def test_lists_are_mapped_and_gathered() -> None:
    prompt = {
        "1": node("Spread", count=3),
        "2": node("Spread", count=2),
        "3": node("Add", a=["1", 0], b=["2", 0]),
        "4": node("Total", values=["3", 0], scale=10),
        "0": node("Show", value=["3", 0]),
        "00": node("Show", value=["4", 0]),
    }
    shown = run(prompt).ui
    assert shown["0"]["text"] == ["0", "2", "3"]  # 0+0, 1+1, 2+1: the shorter list repeats its last.
    assert shown["00"]["text"] == ["50"]


def test_an_empty_list_is_refused_with_the_name_of_the_input() -> None:
    with pytest.raises(NodeError, match=naming("node 0 Show", "value", "empty")):
        run({"1": node("Spread", count=0), "0": node("Show", value=["1", 0])})


def test_async_nodes_run() -> None:
    assert text_of({"1": node("Later", value=6), "0": node("Show", value=["1", 0])}) == ["6"]


@pytest.mark.parametrize(("first", "ran"), [(True, "1"), (False, "2")])
def test_a_lazy_input_that_is_not_asked_for_is_not_made(first: bool, ran: str) -> None:
    prompt = {
        "1": node("Number", value=1),
        "2": node("Number", value=2),
        "3": node("Either", first=first, a=["1", 0], b=["2", 0]),
        "0": node("Show", value=["3", 0]),
    }
    assert text_of(prompt) == [ran]
    assert [ran] == CALLS


@pytest.mark.parametrize("other", ["2", "1"], ids=["of another node", "of the same node"])
def test_a_lazy_input_that_is_not_asked_for_is_hidden_though_it_was_made(other: str) -> None:
    """Else what a node makes would depend on what ran before it."""

    class Seen(CLASSES["Either"]):
        @classmethod
        def execute(cls, first: bool, a: int | None, b: int | None) -> NodeOutput:
            return NodeOutput(1 if b is None else 2)

    prompt = {
        "1": node("Number", value=1),
        "2": node("Number", value=2),
        "3": node("Either", first=True, a=["1", 0], b=[other, 0]),
        "4": node("Show", value=["2", 0]),
        "0": node("Show", value=["3", 0]),
    }
    checked, outputs = validate(prompt, INFO)
    done = Run(checked, outputs, ObjectInfo(CLASSES | {"Either": Seen}))
    done.start()
    assert done.ui["0"]["text"] == ["1" if other == "2" else "2"]


def test_results_are_inference_tensors() -> None:
    made = run({"1": node("Paint", batch=1), "0": node("Save", images=["1", 0], filename_prefix="a")}).entries["1"]
    assert made.values[0][0].is_inference()


@pytest.mark.parametrize(
    ("way", "bad_input", "said"),
    [
        ("value", True, "node 1 Broken: the file is cut short; get it again"),
        ("bug", True, "node 1 Broken: cannot work with what it was given; check"),
        (
            "memory",
            True,
            "node 1 Broken: out of memory; take a smaller image or batch, or --dtype fp16 (3 GiB",
        ),
        (
            "memory of the processor",
            True,
            "node 1 Broken: out of memory; take a smaller image or batch (9 bytes",
        ),
        ("full disk", False, "node 1 Broken: a.png: No space left on device; make room there"),
        ("a file for a folder", True, "node 1 Broken: a: Not a directory"),
        ("package", False, "node 1 Broken: No module named 'spandrel'"),
        ("two outputs", False, "node 1 Broken: execute returned 2 values; the schema has 1 outputs"),
        ("lines", True, "node 1 Broken: cannot work with what it was given (one); check"),
    ],
)
def test_a_failure_names_the_node_and_keeps_what_was_done(way: str, bad_input: bool, said: str) -> None:
    prompt = {"0": node("Show", value=1), "1": node("Broken", way=way), "2": node("Show", value=["1", 0])}
    checked, outputs = validate(prompt, INFO)
    started = Run(checked, outputs, INFO)
    with pytest.raises(NodeError) as failed:
        started.start()
    assert failed.value.line.startswith(said)
    assert failed.value.bad_input is bad_input
    assert list(started.ui) == ["0"]


def test_an_interruption_stops_the_run_and_is_over_afterwards() -> None:
    prompt = {"0": node("Show", value=1), "1": node("Broken", way="interrupt"), "2": node("Show", value=["1", 0])}
    checked, outputs = validate(prompt, INFO)
    started = Run(checked, outputs, INFO)
    with pytest.raises(progress.InterruptProcessingException):
        started.start()
    assert list(started.ui) == ["0"]
    assert not progress.processing_interrupted()


def test_a_node_cannot_keep_state() -> None:
    class Keeper(ComfyNode):
        @classmethod
        def define_schema(cls) -> Schema:
            return Schema(node_id="Keeper", is_output_node=True)

        @classmethod
        def execute(cls) -> None:
            cls.kept = 1  # type: ignore[attr-defined]

    info = ObjectInfo({"Keeper": Keeper})
    with pytest.raises(NodeError, match=naming("Keeper.kept")):
        Run({"1": node("Keeper")}, ["1"], info).start()


def test_saved_images_carry_their_graph(folders: Path) -> None:
    prompt = {"1": node("Paint", batch=2), "2": node("Save", images=["1", 0], filename_prefix="a/b_%width%x%height%")}
    drawing = {"nodes": [], "links": []}
    files = run(prompt, extra_pnginfo={"workflow": drawing}).ui["2"]["images"]
    assert files[0] == {"filename": "b_6x4_00001_.png", "subfolder": "a", "type": "output"}
    for file in files:
        path = folders / "output" / file["subfolder"] / file["filename"]
        carried = read(path)
        assert (carried.prompt, carried.ui_graph) == (prompt, drawing)
        with Image.open(path) as image:
            assert image.size == (6, 4)
            assert set(image.tobytes()) == {127}  # 255 * 0.5, cut off as ComfyUI does.


def test_numbers_go_on_where_the_folder_ends(folders: Path) -> None:
    (folders / "output").mkdir()
    (folders / "output" / "image_00041_.png").touch()
    (folders / "output" / "image_of_me.png").touch()
    prompt = {"1": node("Paint", batch=2), "2": node("Save", images=["1", 0])}
    names = [
        file["filename"]
        for file in run(prompt | {"2": node("Save", images=["1", 0], filename_prefix="image")}).ui["2"]["images"]
    ]
    assert names == ["image_00042_.png", "image_00043_.png"]


def test_previews_go_to_the_temporary_folder(folders: Path) -> None:
    shown = PreviewImage(torch.zeros(1, 2, 2, 3)).as_dict()["images"][0]
    assert shown["type"] == "temp"
    assert (folders / "temp" / shown["filename"]).exists()


@pytest.mark.parametrize("prefix", ["../x", "/x", "a/../../x", "..", "", "x/../..", "a\0/b/../../../x", "link/x"])
def test_nothing_is_saved_outside_the_output_folder(folders: Path, prefix: str) -> None:
    (folders / "output").mkdir()
    (folders / "output" / "link").symlink_to(folders)
    with pytest.raises(ValueError, match="names no file in"):
        ImageSaveHelper.save_images(torch.zeros(1, 2, 2, 3), prefix, FolderType.output, None)
    assert not list(folders.rglob("*.png"))


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="./\\~a%b:\0 ", max_size=12))
def test_no_prefix_leads_out(prefix: str) -> None:
    try:
        folder, stem, *_ = folder_paths.split_prefix(prefix, "/outputs")
    except ValueError:
        return
    assert Path(folder, stem).resolve().is_relative_to("/outputs")


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/hostname", "sub/../../a.png", "a.png [output]", "a\0.png", "link/a.png"]
)
def test_nothing_is_loaded_from_outside_the_input_folder(folders: Path, name: str) -> None:
    (folders / "input").mkdir()
    (folders / "a.png").touch()
    (folders / "input" / "link").symlink_to(folders)
    assert not folder_paths.exists_annotated_filepath(name)


def test_files_are_found_where_they_are_said_to_be(folders: Path) -> None:
    for kind in ("input", "output"):
        (folders / kind).mkdir()
        (folders / kind / "a.png").touch()
    assert folder_paths.get_annotated_filepath("a.png") == str(folders / "input" / "a.png")
    assert folder_paths.get_annotated_filepath("a.png [output]") == str(folders / "output" / "a.png")
    assert folder_paths.exists_annotated_filepath("a.png [input]")


def test_models_are_files_and_diffusers_folders(folders: Path) -> None:
    models = folders / "models" / "checkpoints"
    (models / "sub" / "folder" / "unet").mkdir(parents=True)
    (models / "sub" / "folder" / "model_index.json").touch()
    (models / "sub" / "folder" / "unet" / "model.safetensors").touch()
    for name in ("b.safetensors", "a.ckpt", "notes.txt"):
        (models / name).touch()
    assert folder_paths.get_filename_list("checkpoints") == ["a.ckpt", "b.safetensors", "sub/folder"]
    assert folder_paths.get_full_path_or_raise("checkpoints", "sub/folder") == str(models / "sub" / "folder")
    with pytest.raises(FileNotFoundError, match=naming("checkpoints")):
        folder_paths.get_full_path_or_raise("checkpoints", "../../a.png")


class _FullDisk:
    def __init__(self, file: Any) -> None:
        self.file = file
        self.room = 100

    def write(self, data: bytes) -> int:
        if len(data) > self.room:
            raise OSError(28, "No space left on device")
        self.room -= len(data)
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def test_a_full_disk_is_one_line_and_leaves_no_half_file(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = {"1": node("Paint", batch=1), "2": node("Save", images=["1", 0], filename_prefix="a/b")}
    run(prompt)
    monkeypatch.setattr("tessera.files.writing.open", lambda *a: _FullDisk(open(*a)), raising=False)  # noqa: SIM115
    with pytest.raises(NodeError) as failed:
        run(prompt)
    assert failed.value.line == (
        f"node 2 Save: b_00002_.png cannot be saved in {folders}/output/a: no space left on device; "
        "make room there or choose another folder"
    )
    assert not failed.value.bad_input
    assert [path.name for path in (folders / "output" / "a").iterdir()] == ["b_00001_.png"]


def test_object_info_is_json_in_comfyuis_shape() -> None:
    info = json.loads(json.dumps(dict(INFO)))["Number"]
    assert info["input"]["required"]["value"] == ["INT", {"default": 1, "min": 0, "max": 10}]
    assert info["input"]["optional"]["text"] == ["STRING", {"default": "", "multiline": False, "dynamicPrompts": True}]
    assert info["input"]["optional"]["colour"] == [
        "COMBO",
        {"default": "red", "multiselect": False, "options": ["red", "green", "blue"]},
    ]
    assert info["input"]["hidden"] == {"unique_id": ["UNIQUE_ID"]}
    assert info["output"] == ["INT", "STRING"]
    assert info["output_name"] == ["INT", "STRING"]


def test_a_run_tells_what_was_kept_and_what_came_of_it() -> None:
    """A kept result is told of where it is an output's: that is shown once more."""
    cache = Cache()
    told: list[Any] = []

    def watched(prompt: Prompt) -> list[Any]:
        told.clear()
        run(prompt, cache, on_cached=told.append, on_result=lambda node_id, result: told.append((node_id, result.ui)))
        return list(told)

    assert watched(SHARED) == [[], ("1", {}), ("2", {}), ("0", {"text": ["8"]})]
    assert watched(SHARED) == [["1", "2", "0"], ("0", {"text": ["8"]})]
    changed = SHARED | {"2": node("Add", a=["1", 0], b=5)}
    assert watched(changed) == [["1"], ("2", {}), ("0", {"text": ["9"]})]


def test_nodes_with_intermediate_output_show_what_was_kept_once_more() -> None:
    """Also behind a node that is not asked again. Once: what ran in this run has already shown it."""
    cache = Cache()
    shown: list[tuple[str, Any]] = []
    links = {"2": node("Glimpse", value=["1", 0]), "3": node("Add", a=["2", 0], b=["2", 0])}
    for value, expected in ((4, ["2", "0"]), (4, ["0", "2"]), (5, ["2", "0"])):
        prompt = {"1": node("Number", value=value), **links, "0": node("Show", value=["3", 0])}
        shown.clear()
        run(prompt, cache, on_result=lambda node_id, result: shown.append((node_id, result.ui.get("text"))))
        told = [(node_id, text) for node_id, text in shown if text]
        assert told == [(node_id, [str(value if node_id == "2" else 2 * value)]) for node_id in expected]
