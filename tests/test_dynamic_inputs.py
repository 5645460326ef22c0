"""Inputs that grow, and inputs of a choice, as the editor writes them into files and sends them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from naming import naming
from tessera.app import api, registry
from tessera.host.errors import GraphError
from tessera.host.graph.workflow import convert
from tessera.host.schema.object_info import accepts, inputs_of, nest


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def shown(graph: dict[str, Any], output: str, tmp_path: Path) -> str:
    graph = graph | {"show": node("PreviewAny", source=[output, 0])}
    ready = api.prepare(graph, output_dir=tmp_path)
    api.execute(ready)
    return ready.ui["show"]["text"][0]


EMPTY = node("EmptyImage", width=32, height=24, batch_size=1, color=255)


def test_values_of_a_row_reach_the_node(tmp_path: Path) -> None:
    graph = {
        "1": node("PrimitiveInt", value=3),
        "2": node("PrimitiveFloat", value=0.5),
        "3": node("ComfyMathExpression", **{"expression": "a * b", "values.a": ["1", 0], "values.b": ["2", 0]}),
    }
    assert shown(graph, "3", tmp_path) == "1.5"
    graph["1"]["inputs"]["value"] = 5
    assert shown(graph, "3", tmp_path) == "2.5"


def test_choice_brings_its_inputs(tmp_path: Path) -> None:
    inputs = {"resize_type": "scale width", "resize_type.width": 8, "scale_method": "area"}
    graph = {
        "1": EMPTY,
        "2": node("ResizeImageMaskNode", input=["1", 0], **inputs),
        "3": node("GetImageSize", image=["2", 0]),
    }
    assert shown(graph, "3", tmp_path) == "8"
    graph["2"]["inputs"] |= {"resize_type": "scale by multiplier", "resize_type.multiplier": 2}
    assert shown(graph, "3", tmp_path) == "64"


def test_only_the_chosen_branch_runs(tmp_path: Path) -> None:
    graph = {
        "1": node("PrimitiveBoolean", value=True),
        "2": node("JsonExtractString", json_string='{"a": "yes"}', key="a"),
        "3": node("ComfyMathExpression", **{"expression": "1 / 0", "values.a": ["1", 0]}),
        "4": node("ComfySwitchNode", switch=["1", 0], on_false=["3", 0], on_true=["2", 0]),
    }
    assert shown(graph, "4", tmp_path) == "yes"


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"resize_type": "scale width"}, ("resize_type.width", "missing")),
        ({"resize_type": "larger"}, ("resize_type", "larger", "scale width")),
        ({"resize_type": "scale width", "resize_type.width": -1}, ("resize_type.width", "-1", "0 to 16384")),
        ({}, ("resize_type", "missing", "scale width")),
    ],
)
def test_wrong_choices_are_one_line(inputs: dict[str, Any], said: tuple[str, ...]) -> None:
    given = {"input": ["1", 0], "scale_method": "area", **inputs}
    graph = {"1": EMPTY, "2": node("ResizeImageMaskNode", **given), "3": node("PreviewImage", images=["2", 0])}
    with pytest.raises(GraphError, match=naming(*said)):
        api.prepare(graph)


def test_first_of_a_row_is_required() -> None:
    graph = {"1": node("BatchImagesNode"), "2": node("PreviewImage", images=["1", 0])}
    with pytest.raises(GraphError, match=naming("images.image0", "missing")):
        api.prepare(graph)


def test_file_of_the_editor_is_converted() -> None:
    slots = [
        {"name": "input", "type": "IMAGE,MASK", "link": 1},
        {"name": "resize_type.width", "type": "INT", "widget": {"name": "resize_type.width"}, "link": 2},
    ]
    resize = {"id": 3, "type": "ResizeImageMaskNode", "inputs": slots, "mode": 0}
    document = {
        "nodes": [
            {"id": 1, "type": "EmptyImage", "outputs": [{"links": [1]}], "widgets_values": [32, 24, 1, 0], "mode": 0},
            {"id": 2, "type": "PrimitiveInt", "outputs": [{"links": [2]}], "widgets_values": [9, "fixed"], "mode": 0},
            resize | {"widgets_values": ["scale dimensions", 1024, 512, "center", "lanczos"]},
            {"id": 4, "type": "CustomCombo", "widgets_values": ["9:16", 1, "16:9", "9:16", ""], "mode": 0},
        ],
        "links": [[1, 1, 0, 3, 0, "IMAGE"], [2, 2, 0, 3, 1, "INT"]],
    }
    prompt = convert(document, registry.object_info())
    assert prompt["3"]["inputs"] == {
        "input": ["1", 0],
        "resize_type": "scale dimensions",
        "resize_type.width": ["2", 0],
        "resize_type.height": 512,
        "resize_type.crop": "center",
        "scale_method": "lanczos",
    }
    assert prompt["4"]["inputs"] == {"choice": "9:16", "index": 1}


def test_arguments_are_nested() -> None:
    info = registry.object_info()
    images = {"images.image0": torch.zeros(1), "images.image3": torch.ones(1)}
    assert nest(info["BatchImagesNode"], images)["images"].keys() == {"image0", "image3"}
    assert nest(info["StringFormat"], {"f_string": "x"}) == {"f_string": "x", "values": {}}
    assert list(inputs_of(info["StringFormat"], {}))[-1] == "f_string"
    assert accepts("IMAGE,MASK", "COMFY_MATCHTYPE_V3")
    assert not accepts(inputs_of(info["ResizeImageMaskNode"])["input"].type, "LATENT")
