"""Workflow files: what carries a graph, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from drawings import API, SUM
from graph_nodes import INFO
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tessera.host.errors import GraphError
from tessera.host.workflow import Prompt, Workflow, convert, read, to_prompt


def png(path: Path, **chunks: Any) -> Path:
    """A picture with text chunks."""
    text = PngInfo()
    for key, value in chunks.items():
        (text.add_itxt if key == "prompt" else text.add_text)(
            key, value if isinstance(value, str) else json.dumps(value)
        )
    Image.new("RGB", (2, 2)).save(path, pnginfo=text)
    return path


def test_pictures_carry_graphs(tmp_path: Path) -> None:
    both = read(png(tmp_path / "a.png", prompt=API, workflow=SUM))
    assert (both.prompt, both.drawing) == (API, SUM)
    assert to_prompt(both, INFO) == API
    only_drawn = read(png(tmp_path / "b.png", workflow=SUM))
    assert to_prompt(only_drawn, INFO) == convert(SUM, INFO)


def test_api_format_with_and_without_meta(tmp_path: Path) -> None:
    with_meta = {node_id: each | {"_meta": {"title": "A"}} for node_id, each in API.items()}
    for document in (API, with_meta):
        (tmp_path / "a.json").write_text(json.dumps(document))
        assert to_prompt(read(tmp_path / "a.json"), INFO) == document


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "not JSON"),
        (b"[]", "expected a workflow"),
        (b"3", "expected a workflow"),
        (b"{}", "expected a workflow"),
        (b'{"a": 1}', "expected an object with class_type and inputs"),
        (b'{"a": {"class_type": "Show", "inputs": []}}', "expected an object with class_type and inputs"),
        (b"\x89PNG\r\n\x1a\n", "not a readable PNG"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "not a readable PNG"),
    ],
)
def test_a_file_that_is_no_workflow_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(GraphError, match=said) as refused:
        to_prompt(read(tmp_path / "a.json"), INFO)
    assert len(refused.value.lines) == 1


@pytest.mark.parametrize(
    ("chunks", "said"),
    [({}, "carries no workflow"), ({"prompt": "{"}, "chunk prompt: not JSON"), ({"workflow": "[]"}, "chunk workflow")],
)
def test_a_picture_without_a_graph_is_refused(tmp_path: Path, chunks: dict[str, str], said: str) -> None:
    with pytest.raises(GraphError, match=said):
        read(png(tmp_path / "a.png", **chunks))


def test_a_cut_picture_is_read_as_far_as_needed(tmp_path: Path) -> None:
    whole = png(tmp_path / "a.png", prompt=API).read_bytes()
    for end in range(len(whole)):
        (tmp_path / "b.png").write_bytes(whole[:end])
        try:
            assert read(tmp_path / "b.png").prompt == API
        except GraphError as refused:
            assert len(refused.lines) == 1


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "no.json", tmp_path):
        with pytest.raises(GraphError, match="expected a workflow file"):
            read(path)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random"
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"{"):
        path.write_bytes(start + content)
        with pytest.raises(GraphError):
            to_prompt(read(path), INFO)


def test_a_workflow_needs_one_of_its_two_forms() -> None:
    prompt: Prompt = to_prompt(Workflow(prompt=API), INFO)
    prompt["1"]["inputs"]["value"] = 5
    assert API["1"]["inputs"]["value"] == 4
