"""Leonardo's transparency: by colour where no model is named, and with ComfyUI's nodes where one is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tessera.app.cli.main import main
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.bodies.parameters import APPROXIMATED, MAPPED
from tessera.app.services.convert import Line, convert
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.schema.object_info import ObjectInfo

BODY = {"prompt": "yellow dots on blue", "modelId": "texture-sd", "transparency": "foreground_only"}
MODEL = "BiRefNet.safetensors"


@pytest.fixture(autouse=True)
def models(tmp_path: Path) -> Iterator[Path]:
    """A models folder with a file that finds backgrounds."""
    (tmp_path / "background_removal").mkdir()
    (tmp_path / "background_removal" / MODEL).touch()
    folder_paths.configure(str(tmp_path))
    yield tmp_path
    folder_paths.configure()


def imported(model: str = "", strict: bool = False, **body: Any) -> tuple[Line | None, dict[str, Any]]:
    """What is said of transparency, and the nodes by title."""
    info = ObjectInfo(node_classes())
    request = BODY | body
    drawing, lines = convert(
        SERVICES["leonardo"], request, info, RequestImages({}), 1, background_model=model, strict=strict
    )
    prompt = to_prompt(Workflow(ui_graph=json.loads(json.dumps(drawing))), info)
    said = next((line for line in lines if line.name == "transparency"), None)
    return said, {node["_meta"]["title"]: node | {"number": number} for number, node in prompt.items()}


def source(nodes: dict[str, Any], title: str, name: str) -> str:
    """The title of the node that an input is linked to."""
    return next(other for other, node in nodes.items() if node["number"] == nodes[title]["inputs"][name][0])


def test_without_a_model_the_background_is_told_by_its_colour() -> None:
    said, nodes = imported(upscaleRatio=2)
    assert said
    assert said.outcome == APPROXIMATED
    assert "--background-model" in said.text
    assert nodes["Cut out"]["class_type"] == "TesseraCutOut"
    # An image of one colour does not fail in the run.
    assert nodes["Cut out"]["inputs"]["keep_whole"] is True
    assert source(nodes, "Cut out", "image") == "Enlarge"
    assert source(nodes, "Save", "images") == "Cut out"
    assert nodes["Save"]["class_type"] == "SaveImage"
    assert "LoadBackgroundRemovalModel" not in {node["class_type"] for node in nodes.values()}


@pytest.mark.parametrize("name", [MODEL, "birefnet"])
def test_with_a_model_it_is_cut_by_comfyuis_own_nodes(name: str) -> None:
    said, nodes = imported(name, strict=True, prompt="yellow dots on blue", presetStyle="LEONARDO", alchemy=False)
    assert said
    assert said.outcome == MAPPED
    assert "RemoveBackground.image" in said.text
    assert not [node["class_type"] for node in nodes.values() if node["class_type"] == "TesseraCutOut"]
    assert nodes["Background model"]["inputs"] == {"bg_removal_name": MODEL}
    assert source(nodes, "Foreground", "bg_removal_model") == "Background model"
    assert source(nodes, "Foreground", "image") == source(nodes, "Cut out", "image") == "Decode"
    assert source(nodes, "Background", "mask") == "Foreground"
    assert source(nodes, "Cut out", "alpha") == "Background"
    assert source(nodes, "Save", "images") == "Cut out"


def test_a_model_that_is_not_there_is_said() -> None:
    said, nodes = imported("rmbg")
    assert said
    assert (said.outcome, nodes["Cut out"]["class_type"]) == (APPROXIMATED, "TesseraCutOut")
    assert 'no file "rmbg" in models/background_removal' in said.text


@pytest.mark.parametrize("value", ["disabled", None])
def test_disabled_leaves_images_whole(value: str | None) -> None:
    said, nodes = imported("birefnet", transparency=value)
    assert said is None or said.outcome == MAPPED
    assert source(nodes, "Save", "images") == "Decode"


def test_strict_refuses_what_is_told_by_colour() -> None:
    with pytest.raises(GraphError, match="transparency: approximated"):
        imported(strict=True)


@pytest.mark.parametrize("value", [["foreground_only"], {}, True, 1])
def test_what_is_not_a_text_is_refused_with_the_known_ones(value: Any) -> None:
    with pytest.raises(GraphError, match="foreground_only"):
        imported(transparency=value)


def test_the_command_line_takes_the_model_and_refuses_to_run_it(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is drawn, in one line."""
    request, workflow = tmp_path / "request.json", tmp_path / "workflow.json"
    request.write_text(json.dumps(BODY), encoding="utf-8")
    folders = ["--models-dir", str(models)]
    command = ["import", "leonardo", str(request), "-o", str(workflow), "--background-model", MODEL]
    assert main([*command, *folders]) == 0
    capsys.readouterr()
    for verb in ("check", "run"):
        assert main([verb, str(workflow), *folders]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "LoadBackgroundRemovalModel" in line
        assert "TesseraCutOut" in line
