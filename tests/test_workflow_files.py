"""Workflow files: what carries a graph, and what is refused in one line."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from drawings import API, SUM, drawing, drawn
from graph_nodes import INFO, node
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file
from tessera.host.errors import GraphError
from tessera.host.graph.workflow import Prompt, Workflow, convert, from_document, read, to_prompt


def png(path: Path, **chunks: Any) -> Path:
    """An image with text chunks."""
    text = PngInfo()
    for key, value in chunks.items():
        (text.add_itxt if key == "prompt" else text.add_text)(
            key, value if isinstance(value, str) else json.dumps(value)
        )
    Image.new("RGB", (2, 2)).save(path, pnginfo=text)
    return path


def test_images_carry_graphs(tmp_path: Path) -> None:
    both = read(png(tmp_path / "a.png", prompt=API, workflow=SUM))
    assert (both.prompt, both.ui_graph) == (API, SUM)
    assert to_prompt(both, INFO)["2"] == API["2"]
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
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b"GIF89a\x02\0\x02\0\x81", "not text in UTF-8"),
        (b'{"1": {"class_type": "Number", "inputs": {"text": "caf\xe9"}}}', "not text in UTF-8"),
        (b'{"nodes": [{"id": "a", "type": "invocation"}], "edges": []}', "another program"),
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
def test_a_image_without_a_graph_is_refused(tmp_path: Path, chunks: dict[str, str], said: str) -> None:
    with pytest.raises(GraphError, match=said):
        read(png(tmp_path / "a.png", **chunks))


def test_a_cut_image_is_read_as_far_as_needed(tmp_path: Path) -> None:
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
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"{", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"\0\0\0\0ftypavif"):
        path.write_bytes(start + content)
        with pytest.raises(GraphError):
            to_prompt(read(path), INFO)


def test_a_workflow_needs_one_of_its_two_forms() -> None:
    prompt: Prompt = to_prompt(Workflow(prompt=API), INFO)
    prompt["1"]["inputs"]["value"] = 5
    assert API["1"]["inputs"]["value"] == 4


def test_the_drawing_adds_what_an_older_graph_lacks(tmp_path: Path) -> None:
    older = {"1": node("Seeded", seed=7), "2": node("Show", value=["1", 0])}
    shown = drawing(
        drawn(1, "Seeded", [8, "fixed", 30], (), ["INT"]),
        drawn(2, "Show", [], [("value", "*", 1)]),
        links=[(1, 1, 0, 2, 0)],
    )
    made = to_prompt(read(png(tmp_path / "a.png", prompt=older, workflow=shown)), INFO)
    assert made["1"]["inputs"] == {"seed": 7, "steps": 30}
    assert made["2"]["inputs"] == {"value": ["1", 0]}
    other = drawing(drawn(1, "Number", [3]))
    assert to_prompt(read(png(tmp_path / "b.png", prompt=older, workflow=other)), INFO) == older
    broken = drawing(drawn(1, "Seeded", [8, "fixed", 30], [("start", "INT", 99)]))
    assert to_prompt(read(png(tmp_path / "c.png", prompt=older, workflow=broken)), INFO) == older


def test_a_damaged_graph_leaves_the_drawing(tmp_path: Path) -> None:
    assert to_prompt(read(png(tmp_path / "a.png", prompt="{", workflow=SUM)), INFO) == convert(SUM, INFO)


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunk(path: Path, name: bytes, data: bytes) -> Path:
    """A PNG whose last chunk but the end holds a text."""
    whole = png(path).read_bytes()
    path.write_bytes(whole[:-12] + chunk(name, data) + whole[-12:])
    return path


@pytest.mark.parametrize(
    ("name", "before", "packed"),
    [
        (b"tEXt", b"prompt\0", False),
        (b"zTXt", b"prompt\0\0", True),
        (b"iTXt", b"prompt\0\0\0en\0Prompt\0", False),
        (b"iTXt", b"Prompt\0\1\0\0\0", True),
    ],
)
def test_every_kind_of_text_chunk_behind_the_pixels(tmp_path: Path, name: bytes, before: bytes, packed: bool) -> None:
    document = {"1": node("Number", value=4, text="\u00e9" * 3_000_000)}
    text = json.dumps(document, ensure_ascii=False).encode()
    path = with_chunk(tmp_path / "a.png", name, before + (zlib.compress(text) if packed else text))
    assert read(path).prompt == document


def test_texts_that_unpack_without_end_are_refused(tmp_path: Path) -> None:
    bomb = zlib.compress(b" " * (65 * 1024 * 1024))
    with pytest.raises(GraphError, match="longer than 64 MB"):
        read(with_chunk(tmp_path / "a.png", b"zTXt", b"prompt\0\0" + bomb))
    with pytest.raises(GraphError, match="damaged"):
        read(with_chunk(tmp_path / "a.png", b"zTXt", b"prompt\0\0" + b"no zlib"))


def test_texts_are_bounded_together_and_others_are_not_unpacked(tmp_path: Path) -> None:
    half = b"prompt\0\0" + zlib.compress(b" " * (33 * 1024 * 1024))
    path = png(tmp_path / "a.png", prompt={"1": node("Number", value=4)})
    whole = path.read_bytes()
    path.write_bytes(whole[:-12] + chunk(b"zTXt", b"Comment\0\0no zlib") * 3 + whole[-12:])
    assert read(path).prompt == {"1": node("Number", value=4)}
    path.write_bytes(whole[:-12] + chunk(b"zTXt", half) * 2 + whole[-12:])
    with pytest.raises(GraphError, match="longer than 64 MB"):
        read(path)


MAKE, MODEL, DESCRIPTION = 0x10F, 0x110, 0x10E


@pytest.mark.parametrize(("suffix", "name"), [("webp", "WebP"), ("jpg", "JPEG")])
def test_images_with_exif_carry_graphs(tmp_path: Path, suffix: str, name: str) -> None:
    def saved(tags: dict[int, str]) -> Path:
        exif = Image.Exif()
        exif.update(tags)
        Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}", exif=exif)
        return tmp_path / f"a.{suffix}"

    both = read(saved({MODEL: f"prompt:{json.dumps(API)}", MAKE: f"workflow:{json.dumps(SUM)}"}))
    assert (both.prompt, both.ui_graph) == (API, SUM)
    assert read(saved({MAKE: f"Workflow: {json.dumps(SUM)}"})) == Workflow(None, SUM)
    assert read(saved({DESCRIPTION: json.dumps({"prompt": API, "workflow": SUM})})) == Workflow(API, SUM)
    with pytest.raises(GraphError, match=f"the {name} carries no workflow"):
        read(saved({MAKE: "Camera"}))


def test_saved_latents_carry_graphs(tmp_path: Path) -> None:
    def saved(metadata: dict[str, str]) -> Path:
        save_file({"latent_tensor": torch.zeros(1, 4, 2, 2)}, tmp_path / "a.latent", metadata)
        return tmp_path / "a.latent"

    assert read(saved({"prompt": json.dumps(API), "workflow": json.dumps(SUM)})) == Workflow(API, SUM)
    with pytest.raises(GraphError, match="metadata prompt: not JSON"):
        read(saved({"prompt": "moss"}))
    with pytest.raises(GraphError, match="carries no workflow"):
        read(saved({}))
    whole = saved({"prompt": json.dumps(API)}).read_bytes()
    for cut in (9, 100, len(whole) - 200):
        (tmp_path / "b.latent").write_bytes(whole[:cut])
        with pytest.raises(GraphError):
            read(tmp_path / "b.latent")


def test_remarks_of_a_jpeg_carry_graphs(tmp_path: Path) -> None:
    for remark in (
        b"ASCII\0\0\0" + json.dumps({"prompt": API}).encode(),
        b"UNICODE\0" + json.dumps({"prompt": API}).encode("utf-16-be"),
        b"UNICODE\0" + json.dumps({"prompt": API}).encode("utf-16-le"),
        b"ASCII\0\0\0" + json.dumps({"prompt": API}).encode() + bytes(3),
    ):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = remark
        Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
        assert read(tmp_path / "a.jpg").prompt == API


@pytest.mark.parametrize("suffix", ["webp", "jpg"])
def test_a_cut_image_with_exif_is_read_or_refused(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[MODEL] = f"prompt:{json.dumps(API)}"
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}", exif=exif)
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    for end in range(len(whole)):
        (tmp_path / "b").write_bytes(whole[:end])
        try:
            assert read(tmp_path / "b").prompt == API
        except GraphError as refused:
            assert len(refused.lines) == 1
            assert refused.lines[0].isprintable()


RUN = [3, "an-id", API, {"client_id": "x", "extra_pnginfo": {"workflow": SUM}}, ["2"]]


@pytest.mark.parametrize(
    ("document", "prompt", "drawn"),
    [
        ({"prompt": API, "client_id": "x"}, API, None),
        ({"prompt": API, "extra_data": {"extra_pnginfo": {"workflow": SUM}}}, API, SUM),
        ({"prompt": json.dumps(API), "workflow": json.dumps(SUM)}, API, SUM),
        ({"output": API, "workflow": SUM}, API, SUM),
        ({"workflow": SUM}, None, SUM),
        ({"input": {"workflow": API, "images": []}}, API, None),
        ({"an-id": {"prompt": RUN, "outputs": {}, "status": {}}}, API, SUM),
        ({"prompt": RUN, "outputs": {}}, API, SUM),
        ({"queue_running": [], "queue_pending": [RUN]}, API, SUM),
    ],
)
def test_graphs_are_unwrapped(tmp_path: Path, document: Any, prompt: Any, drawn: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert read(tmp_path / "a.json") == Workflow(prompt, drawn)


def test_a_history_of_several_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": {"prompt": RUN}, "b": {"prompt": RUN}}))
    with pytest.raises(GraphError, match="found 2 runs; expected one workflow"):
        read(tmp_path / "a.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just(API) | st.just(RUN),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["prompt", "workflow", "output", "extra_data", "nodes", "a"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(JSON)
def test_any_document_is_read_or_refused_in_single_lines(document: Any) -> None:
    try:
        to_prompt(from_document(document), INFO)
    except GraphError as refused:
        assert refused.lines
        assert all(line.isprintable() for line in refused.lines)
