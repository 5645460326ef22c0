"""`intermediateImages`: the images of the steps beside a image that stays the same to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tessera.app.cli.main import main
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.bodies.parameters import MAPPED, MEANINGLESS
from tessera.app.services.convert import Line, convert
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.schema.object_info import ObjectInfo

TINY = {"prompt": "white and teal zigzag", "width": 64, "height": 64, "seed": 7, "negativePrompt": "red"}
BODIES: dict[str, dict[str, Any]] = {
    "euler": TINY | {"modelId": "texture-sd", "numInferenceSteps": 3, "numSamples": 2},
    "scheduler": TINY
    | {"modelId": "texture-sd", "numInferenceSteps": 4, "numSamples": 1, "scheduler": "DDPMScheduler", "guidance": 3},
    "flux": TINY
    | {"modelId": "flux.1-dev", "numInferenceSteps": 2, "numSamples": 1, "negativePromptStrength": 4, "guidance": 2},
}


@pytest.fixture(autouse=True)
def own_folders() -> Iterator[None]:
    before = folder_paths.models_dir, folder_paths.get_input_directory(), folder_paths.get_output_directory()
    yield
    folder_paths.configure(*before)


def drawn(body: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[Any]]:
    """The images that a request makes, by the beginning of their names."""
    folder.mkdir()
    request, workflow = folder / "request.json", folder / "workflow.json"
    request.write_text(json.dumps(body))
    folders = ["--input-dir", str(folder), "--models-dir", str(folder)]
    assert main(["import", "scenario-texture", str(request), "-o", str(workflow), *folders]) == 0
    capsys.readouterr()
    command = ["run", str(workflow), "--device", "cpu", "--output-dir", str(folder), *folders]
    assert main(command) == 0
    found: dict[str, list[Any]] = {}
    for path in map(Path, capsys.readouterr().out.splitlines()):
        with Image.open(path) as image:
            found.setdefault(path.name[: -len("_00001_.png")], []).append(np.asarray(image))
    return found


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_image_is_the_same_with_and_without(
    body: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = drawn(body, tmp_path / "plain", capsys)
    both = drawn(body | {"intermediateImages": True}, tmp_path / "both", capsys)
    assert plain.keys() == {"tessera"}
    assert both.keys() == {"tessera", "tessera_steps"}
    assert np.array_equal(both["tessera"], plain["tessera"])
    steps, count = both["tessera_steps"], body["numSamples"]
    assert len(steps) == body["numInferenceSteps"] * count
    assert np.abs(np.subtract(steps[-count:], both["tessera"], dtype=np.float64)).max() <= 1.0
    assert np.abs(np.subtract(steps[:count], both["tessera"], dtype=np.float64)).mean() > 1.0


def imported(**body: Any) -> tuple[dict[str, Line], set[str]]:
    """The report, and the classes of the nodes."""
    info = ObjectInfo(node_classes())
    asked = BODIES["euler"] | body
    drawing, lines = convert(SERVICES["scenario-ip-adapter"], asked, info, RequestImages({}), 1, strict=True)
    prompt = to_prompt(Workflow(ui_graph=json.loads(json.dumps(drawing))), info)
    return {line.name: line for line in lines}, {node["class_type"] for node in prompt.values()}


@pytest.mark.parametrize("scheduler", [None, "DDIMScheduler"])
def test_report_says_where_values_went(scheduler: str | None) -> None:
    said, classes = imported(intermediateImages=True, guidance=3, scheduler=scheduler)
    assert "TesseraSampleSteps" in classes
    assert not {"KSampler", "TesseraSchedulerKSampler"} & classes
    given = BODIES["euler"].keys() | {"intermediateImages", "guidance"}
    assert {said[name].outcome for name in given} <= {MAPPED, MEANINGLESS}
    for name, place in (
        ("seed", "RandomNoise.noise_seed"),
        ("guidance", "CFGGuider.cfg"),
        ("numInferenceSteps", f"{'TesseraScheduler' if scheduler else 'BasicScheduler'}.steps"),
        ("intermediateImages", "TesseraSampleSteps.every"),
        ("intermediateImages", "SaveImage.images"),
    ):
        assert place in said[name].text
    if scheduler:
        assert "TesseraScheduler.scheduler" in said["scheduler"].text


def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    for body in ({}, {"intermediateImages": False}):
        said, classes = imported(**body)
        assert "TesseraSampleSteps" not in classes
        assert said["intermediateImages"].text.endswith("off")
