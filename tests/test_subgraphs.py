"""The blueprints in subgraphs: each is what its table says, converts to that, and runs on a demo model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tessera
from PIL import Image
from tessera.app.registry import object_info
from tessera.host.graph.workflow import convert
from tessera.host.images.loading import load_image
from tessera.tiling import seam
from tessera.tools.blueprints import FOLDER, FRAME, SPECS, blueprints
from tessera.tools.layout import dump, overlaps

INFO = object_info()
TABLE: dict[str, Any] = json.loads(SPECS.read_text("utf-8"))
LOADER = 1000

names = pytest.mark.parametrize("name", TABLE)


def used(name: str, checkpoint: str) -> dict[str, Any]:
    """A workflow that a user makes: a loader, the blueprint as it is added to a graph, and a node that saves."""
    drawing = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    (frame,) = drawing["nodes"]
    loader = {"id": LOADER, "type": "TesseraDemoCheckpoint", "widgets_values": [checkpoint], "inputs": []}
    image = {"id": LOADER + 1, "type": "LoadImage", "widgets_values": ["photo.png", "image"], "inputs": []}
    save = {"id": LOADER + 2, "type": "SaveImage", "widgets_values": ["used"], "inputs": [slot("images", 100)]}
    links = [[100, FRAME, 0, LOADER + 2, 0, "IMAGE"]]
    sources = {"model": (LOADER, 0), "clip": (LOADER, 1), "vae": (LOADER, 2), "image": (LOADER + 1, 0)}
    for place, entry in enumerate(frame["inputs"]):
        if "widget" not in entry:
            entry["link"] = 101 + place
            links.append([101 + place, *sources[entry["name"]], FRAME, place, entry["type"]])
    return drawing | {"nodes": [loader, image, frame, save], "links": links}


def slot(name: str, link: int) -> dict[str, Any]:
    return {"name": name, "type": "*", "link": link}


@names
def test_a_file_is_up_to_date(name: str) -> None:
    found = (FOLDER / f"{name}.json").read_text("utf-8")
    assert found == dump(blueprints()[name]), "run: python -m tessera.tools.blueprints"


def test_no_other_file_is_there() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == TABLE.keys()


@names
def test_a_blueprint_is_one_frame_that_says_what_it_does(name: str) -> None:
    drawing = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    (frame,), (subgraph,) = drawing["nodes"], drawing["definitions"]["subgraphs"]
    assert frame["type"] == subgraph["id"]
    assert drawing["extra"]["BlueprintDescription"].endswith(".")
    assert drawing["extra"]["BlueprintSearchAliases"]
    assert len(frame["widgets_values"]) == len(frame["properties"]["proxyWidgets"]) <= 10
    assert not overlaps(subgraph, {})


@names
def test_a_blueprint_converts_to_its_table(name: str) -> None:
    prompt = convert(used(name, "texture-sd"), INFO)
    for number, node in TABLE[name]["nodes"].items():
        found = prompt[f"{FRAME}:{number}"]
        assert found["class_type"] == node["class_type"]
        for key, value in node["inputs"].items():
            expected = [f"{FRAME}:{value[0]}", value[1]] if isinstance(value, list) else value
            assert found["inputs"][key] == expected, (number, key)
    for label, targets in TABLE[name]["inputs"].items():
        for number, key in targets:
            assert key in prompt[f"{FRAME}:{number}"]["inputs"], label


@names
def test_a_value_on_the_frame_reaches_every_input_it_stands_for(name: str) -> None:
    drawing = used(name, "texture-sd")
    frame = drawing["nodes"][2]
    shown = [key for _, key in frame["properties"]["proxyWidgets"]]
    frame["widgets_values"][shown.index("prompt")] = "red and white scales"
    frame["widgets_values"][shown.index("seed")] = 99
    prompt = convert(drawing, INFO)
    for label, value in (("prompt", "red and white scales"), ("seed", 99)):
        for number, key in TABLE[name]["inputs"][label]:
            assert prompt[f"{FRAME}:{number}"]["inputs"][key] == value


@names
def test_a_blueprint_runs_on_a_demo_model(name: str, tmp_path: Path) -> None:
    checkpoint = "texture-flux" if "Flux" in name else "texture-sd"
    drawing = used(name, checkpoint)
    shown = [key for _, key in drawing["nodes"][2]["properties"]["proxyWidgets"]]
    drawing["nodes"][2]["widgets_values"][shown.index("steps")] = 8
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    (path,) = tessera.run(drawing, input_dir=tmp_path, output_dir=tmp_path / "output", device="cpu").paths
    image = load_image(path)[0]
    assert image.shape == (1, 128, 128, 3)
    if name == "Text to seamless texture":
        assert not seam.measure(image)[0].visible
    if name == "Make a photo tileable":
        inside = slice(32, -32)
        assert np.array_equal((255 * image[0, inside, inside]).round().byte(), noise[inside, inside])
