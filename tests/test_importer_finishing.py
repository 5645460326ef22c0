"""What requests ask of finished images: larger ones, and a safety filter, each where its file is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.bodies.parameters import APPROXIMATED, MAPPED, NOT_YET
from tessera.app.services.convert import Line, convert
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.graph.validation import validate
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.schema.object_info import ObjectInfo


@pytest.fixture(params=[True, False])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[bool]:
    """Whether an upscale model and a checker lie in models."""
    if request.param:
        for name in ("upscale_models/twice.pth", "safety_checker/nsfw/config.json"):
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).touch()
    folder_paths.configure(str(tmp_path))
    yield request.param
    folder_paths.configure()


def imported(service: str, **body: Any) -> tuple[dict[str, Line], dict[str, list[dict[str, Any]]]]:
    """The report, and the inputs of the nodes of each class."""
    info = ObjectInfo(node_classes())
    drawing, lines = convert(SERVICES[service], {"prompt": "moss", **body}, info, RequestImages({}), 1)
    prompt = to_prompt(Workflow(ui_graph=json.loads(json.dumps(drawing))), info)
    validate(prompt, info)
    nodes: dict[str, list[dict[str, Any]]] = {}
    for node in prompt.values():
        nodes.setdefault(node["class_type"], []).append(node["inputs"])
    return {line.name: line for line in lines}, nodes


@pytest.mark.parametrize("tiling", [True, False])
def test_upscale_ratio_takes_a_model_where_there_is_one(there: bool, tiling: bool) -> None:
    said, nodes = imported("leonardo", width=512, height=256, upscaleRatio=1.5, tiling=tiling)
    assert said["upscaleRatio"].outcome == (MAPPED if there else APPROXIMATED)
    assert ("ImageUpscaleWithModel" in nodes) is there
    assert (("TesseraWrapPad" in nodes), ("TesseraWrapCrop" in nodes)) == (tiling, tiling)
    if there:
        (size,) = nodes["ImageScale"]
        around = 2 * nodes["TesseraWrapPad"][0]["padding"] if tiling else 0
        assert (size["width"], size["height"]) == (768 + 1.5 * around, 384 + 1.5 * around)
    else:
        assert nodes["ImageScale" if tiling else "ImageScaleBy"]
        assert "models/upscale_models" in said["upscaleRatio"].text


def test_high_resolution_and_upscale_ratio_multiply(there: bool) -> None:
    _, nodes = imported("leonardo", width=512, height=256, upscaleRatio=2, highResolution=True)
    if there:
        assert nodes["ImageScale"][0]["width"] == 2048
    else:
        assert [node["scale_by"] for node in nodes["ImageScaleBy"]] == [2.0, 2.0]


@pytest.mark.parametrize(
    ("asked", "method"),
    [
        ({}, "text"),
        ({"safety_checker_type": "blur"}, "blur"),
        ({"safety_checker_type": "pixelate", "safety_checker": "yes"}, "pixelate"),
        ({"safety_checker_type": "black"}, "black"),
        ({"safety_checker": "no", "safety_checker_type": "black"}, None),
    ],
)
def test_modelslab_checks_unless_told_not_to(there: bool, asked: dict[str, str], method: str | None) -> None:
    said, nodes = imported("modelslab", **asked)
    assert [node["method"] for node in nodes.get("TesseraSafetyFilter", [])] == [method] * bool(there and method)
    if method:
        assert said["safety_checker"].outcome == (MAPPED if there else NOT_YET)
        assert said["safety_checker_type"].outcome == (MAPPED if there else NOT_YET)
    else:
        assert str(said["safety_checker"]) == "safety_checker: mapped; off"
