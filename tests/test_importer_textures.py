"""Requests of Scenario's textures from images: what they become, and what is told."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tessera.app import api
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.bodies.parameters import MAPPED, NO_EFFECT, NOT_YET
from tessera.app.services.convert import Line, convert
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.schema.object_info import ObjectInfo

NETWORKS = ("sd15_canny.safetensors", "sd15_openpose.safetensors", "flux_tile.safetensors", "sd15_depth.safetensors")


def image() -> str:
    """Bumps that repeat."""
    y, x = np.mgrid[:32, :48]
    grey = 128 + 60 * np.sin(2 * np.pi * x / 48) * np.sin(2 * np.pi * y / 32)
    file = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).convert("RGB").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


IMAGE = image()
TEXTURE = {"modelId": "texture-sd", "prompt": "moss", "width": 64, "height": 64, "numSamples": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "models" / "controlnet").mkdir(parents=True)
    (tmp_path / "input").mkdir()
    for name in NETWORKS:
        (tmp_path / "models" / "controlnet" / name).touch()
    folder_paths.configure(str(tmp_path / "models"), str(tmp_path / "input"), str(tmp_path / "output"))
    yield tmp_path
    folder_paths.configure()


def imported(service: str, **body: Any) -> tuple[dict[str, Line], dict[str, dict[str, Any]], Any]:
    """The report by parameter, the inputs of the nodes by title, and the drawing; images are in the input folder."""
    info, found = ObjectInfo(node_classes()), RequestImages({})
    drawing, lines = convert(SERVICES[service], body, info, found, 1)
    for name, content in found.found.items():
        (Path(folder_paths.get_input_directory()) / name).write_bytes(content)
    prompt = to_prompt(Workflow(ui_graph=json.loads(json.dumps(drawing))), info)
    titles = {str(node["id"]): node["title"] for node in drawing["nodes"]}
    return {line.name: line for line in lines}, {titles[key]: node["inputs"] for key, node in prompt.items()}, drawing


@pytest.mark.usefixtures("folder")
def test_an_image_is_changed_into_a_texture() -> None:
    said, nodes, _ = imported("scenario-img2img-texture", **TEXTURE, image=IMAGE, numInferenceSteps=20, strength=0.3)
    assert (nodes["Sampler"]["steps"], nodes["Sampler"]["denoise"]) == (6, 0.3)
    assert "Seamless model" in nodes
    assert said["strength"].outcome == MAPPED
    _, nodes, _ = imported("scenario-img2img-texture", **TEXTURE, image=IMAGE, mask=IMAGE)
    assert {"Noise mask", "Mask"} <= nodes.keys()
    said, nodes, _ = imported("scenario-img2img-texture", **TEXTURE, image=IMAGE, maskId=IMAGE)
    assert "Mask" not in nodes
    assert said["maskId"].outcome == NO_EFFECT
    assert "Mask" in imported("scenario-img2img-texture", **TEXTURE, imageId=IMAGE, maskId=IMAGE)[1]


@pytest.mark.usefixtures("folder")
def test_modalities_become_networks_with_their_weights() -> None:
    sent = TEXTURE | {"controlImage": IMAGE, "modality": "canny:0.4, pose:0.9", "disableModalityDetection": False}
    said, nodes, _ = imported("scenario-controlnet-texture", **sent)
    assert [nodes[title]["strength"] for title in ("Control", "Control 2")] == [0.4, 0.9]
    assert [nodes[title]["control_net_name"] for title in ("Control network", "Control network 2")] == list(
        NETWORKS[:2]
    )
    assert "Control edges" in nodes
    assert "Control edges 2" not in nodes
    assert "no node finds it in the image" in said["disableModalityDetection"].text
    assert said["modality"].outcome == MAPPED
    assert (
        "Control edges" not in imported("scenario-controlnet-texture", **sent | {"disableModalityDetection": True})[1]
    )


@pytest.mark.usefixtures("folder")
def test_networks_that_are_missing_do_not_hide_those_that_act() -> None:
    sent = TEXTURE | {"controlImage": IMAGE, "modality": "canny,seg"}
    said, nodes, _ = imported("scenario-controlnet-texture", **sent)
    assert "Control" in nodes
    assert (said["modality"].outcome, said["controlImage"].outcome) == (NOT_YET, MAPPED)
    assert '"seg"' in said["modality"].text
    said, nodes, _ = imported("scenario-controlnet-texture", **sent | {"modality": "city"})
    assert "Control" not in nodes
    assert "preset" in said["modality"].text


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("sent", "part"), [({}, (None, 0.6)), ({"controlStart": 0.2, "controlEnd": 1}, (0.2, 1.0))])
def test_flux_alone_starts_and_ends_its_network(sent: dict[str, float], part: tuple[float | None, float]) -> None:
    flux = TEXTURE | {"modelId": "flux.1-dev", "controlImage": IMAGE, "modality": "tile", **sent}
    said, nodes, _ = imported("scenario-controlnet-texture", **flux)
    assert (nodes["Control"].get("start_percent") or None, nodes["Control"]["end_percent"]) == part
    said, nodes, _ = imported("scenario-controlnet-texture", **flux | {"modelId": "texture-sd", "modality": "canny"})
    assert nodes["Control"]["end_percent"] == 1.0
    assert all(said[name].outcome == NO_EFFECT for name in sent)


def test_a_texture_gives_maps_that_repeat(folder: Path) -> None:
    _, nodes, drawing = imported("scenario-texture-converter", texture=IMAGE, raised=0.5)
    assert nodes["Normal"]["strength"] == 8.0
    folders = {f"{name}_dir": folder / name for name in ("models", "input", "output")}
    results = api.run(json.loads(json.dumps(drawing)), **folders, device="cpu")
    names = sorted(Path(path).name.rsplit("_", 2)[0] for path in results.paths)
    assert names == ["tessera_height", "tessera_normal", "tessera_occlusion"]
    for each in results:
        pixels = np.asarray(each.convert("RGB"), dtype=float)
        assert pixels.shape == (32, 48, 3)
        for axis in (0, 1):
            steps = np.abs(pixels - np.roll(pixels, 1, axis)).mean(axis=(1 - axis, 2))
            assert steps[0] <= steps[1:].max() * 1.05 + 1
    flat = imported("scenario-texture-converter", texture=IMAGE, raised=1, invert=True)[1]
    assert flat["Normal"]["strength"] == -16.0
    said, usual, _ = imported(
        "scenario-texture-converter", texture=IMAGE, raised=1, invert=True, defaultParameters=True
    )
    assert usual["Normal"]["strength"] == 8.0
    assert said["raised"].outcome == NO_EFFECT
