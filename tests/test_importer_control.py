"""ControlNets in requests: drawn where there is a file, and said where something is missing."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.bodies.parameters import APPROXIMATED, MAPPED, NO_EFFECT, NOT_YET
from tessera.app.services.convert import Line, convert
from tessera.app.services.drawing.control_networks import network_file
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.graph.validation import validate
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.schema.object_info import ObjectInfo

FILES = ["control_v11p_sd15_canny.safetensors", "sdxl_openpose.safetensors", "sd15_openpose.safetensors", "depth.pth"]


def encoded(colour: str = "teal") -> str:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("control")
    folder_paths.configure(str(root / "models"), str(root / "input"), str(root / "output"))
    for name in FILES:
        path = root / "models" / "controlnet" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path(folder_paths.get_input_directory()).mkdir()
    image = root / "image.png"
    image.write_bytes(base64.b64decode(encoded()))
    yield image
    folder_paths.configure()


def imported(models: Path, service: str, body: dict[str, Any], **options: Any) -> tuple[dict[str, Line], list[Any]]:
    """The report, and the ControlNets in turn: (inputs, file, whether edges are found)."""
    info = ObjectInfo(node_classes())
    found = RequestImages(dict.fromkeys(["a", "b", "c"], models))
    drawing, lines = convert(SERVICES[service], {"prompt": "moss"} | body, info, found, 1, **options)
    for file, content in found.found.items():
        (Path(folder_paths.get_input_directory()) / file).write_bytes(content)
    prompt = to_prompt(Workflow(ui_graph=json.loads(json.dumps(drawing))), info)
    validate(prompt, ObjectInfo(info.classes))
    sampler = next(node["inputs"] for node in prompt.values() if "KSampler" in node["class_type"])
    chain, node = [], prompt[sampler["positive"][0]]
    while node["class_type"] == "ControlNetApplyAdvanced":
        given = node["inputs"]
        assert given["negative"][0] == given["positive"][0] or not chain or given["positive"][1] == 0
        file = prompt[given["control_net"][0]]["inputs"]["control_net_name"]
        chain.append((given, file, prompt[given["image"][0]]["class_type"] == "Canny"))
        node = prompt[given["positive"][0]]
    return {line.name: line for line in lines}, chain[::-1]


CONTROLNET = {"controlnet": "canny", "controlnet_image": encoded(), "width": 1024, "height": 1024}


def test_octoai_says_how_strongly_until_when_and_with_edges(models: Path) -> None:
    body = CONTROLNET | {"controlnet_conditioning_scale": 0.5, "controlnet_early_stop": 0.25}
    said, [(given, file, edges)] = imported(models, "octoai", body | {"controlnet_preprocess": True})
    assert (given["strength"], given["start_percent"], given["end_percent"]) == (0.5, 0.0, 0.25)
    assert file == FILES[0]
    assert edges
    assert {said[name].outcome for name in body if name.startswith("controlnet")} == {MAPPED}
    assert said["controlnet_preprocess"].outcome == APPROXIMATED
    said, [(given, _, edges)] = imported(models, "octoai", CONTROLNET)
    assert (given["strength"], given["end_percent"], edges) == (1.0, 1.0, False)


def test_what_is_not_drawn_is_said(models: Path) -> None:
    said, [(_, file, edges)] = imported(
        models, "octoai", CONTROLNET | {"controlnet": "depth", "controlnet_preprocess": True}
    )
    assert (file, edges) == (FILES[3], False)
    assert said["controlnet_preprocess"].outcome == NOT_YET
    assert "as it is" in said["controlnet_preprocess"].text
    said, chain = imported(models, "octoai", CONTROLNET | {"controlnet": "scribble"})
    assert not chain
    assert {said[name].outcome for name in ("controlnet", "controlnet_image")} == {NOT_YET}
    assert "models/controlnet" in said["controlnet"].text
    with pytest.raises(GraphError, match="scribble"):
        imported(models, "octoai", CONTROLNET | {"controlnet": "scribble"}, strict=True)
    with pytest.raises(GraphError, match="controlnet: found without controlnet_image"):
        imported(models, "octoai", {"controlnet": "canny"})
    said, _ = imported(models, "octoai", {})
    assert said["controlnet_conditioning_scale"].outcome == NO_EFFECT


def test_leonardos_list_becomes_a_chain_and_image_prompts(models: Path) -> None:
    items = [
        {"initImageId": "a", "initImageType": "UPLOADED", "preprocessorId": 19, "weight": "0.5"},
        {"initImageId": "b", "preprocessorId": "20", "strengthType": "Low"},
        {"initImageId": "c", "preprocessorId": 67, "strengthType": "Max"},
    ]
    said, chain = imported(models, "leonardo", {"controlnets": items, "sd_version": "v1_5"})
    assert [(given["strength"], file, edges) for given, file, edges in chain] == [
        (0.5, FILES[0], True),
        (0.2, FILES[3], False),
    ]
    assert said["controlnets"].outcome == APPROXIMATED
    assert "TesseraImagePrompt" not in said["controlnets"].text
    assert "LoadImage.image" in said["controlnets"].text


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"preprocessorId": 19}, "initImageId"),
        ({"initImageId": 5, "preprocessorId": 19}, "initImageId 5"),
        ({"initImageId": "a", "preprocessorId": 19, "weight": 3}, "from 0 to 2"),
        ({"initImageId": "a", "preprocessorId": 19, "weight": True}, "from 0 to 2"),
        ({"initImageId": "a", "preprocessorId": 19, "weight": [1]}, "from 0 to 2"),
        ({"initImageId": "a", "preprocessorId": 19, "strengthType": ["Low"]}, '"Low", "Mid"'),
        ({"initImageId": "missing", "preprocessorId": 19}, "--image"),
    ],
)
def test_wrong_objects_are_refused(models: Path, item: dict[str, Any], said: str) -> None:
    with pytest.raises(GraphError) as caught:
        imported(models, "leonardo", {"controlnets": [item]})
    (line,) = caught.value.lines
    assert line.startswith("controlnets: found ")
    assert said in line


def test_an_unknown_class_of_strength_is_said(models: Path) -> None:
    """The document prints no list of them."""
    item = {"initImageId": "a", "preprocessorId": 19, "strengthType": "Huge"}
    said, [(given, _, _)] = imported(models, "leonardo", {"controlnets": [item]})
    assert given["strength"] == 1.0
    assert said["controlnets"].outcome == NOT_YET
    assert 'strengthType "Huge", known are "Low", "Mid"' in said["controlnets"].text
    _, [(known, _, _)] = imported(models, "leonardo", {"controlnets": [item | {"strengthType": "Low"}]})
    assert known["strength"] == 0.2


@pytest.mark.parametrize("number", [999, None, "nineteen", [19], {}])
def test_unknown_numbers_are_left_out(models: Path, number: Any) -> None:
    said, chain = imported(models, "leonardo", {"controlnets": [{"initImageId": "a", "preprocessorId": number}]})
    assert not chain
    assert said["controlnets"].outcome == NOT_YET


def test_the_deprecated_trio_follows_the_init_image(models: Path) -> None:
    old = {
        "controlNet": True,
        "controlNetType": "POSE",
        "weighting": 0.7,
        "init_image_id": "a",
        "sd_version": "SDXL_1_0",
    }
    said, [(given, file, edges)] = imported(models, "leonardo", old)
    # The demo model that stands in is an SD 1.5.
    assert (given["strength"], file, edges) == (0.7, FILES[2], False)
    assert "deprecated, use controlnets" in said["controlNet"].text
    _, [(_, _, edges)] = imported(models, "leonardo", old | {"controlNetType": "CANNY", "init_strength": 0.3})
    assert edges
    items = [{"initImageId": "b", "preprocessorId": 20, "weight": 1}]
    said, chain = imported(models, "leonardo", old | {"controlnets": items})
    assert [file for _, file, _ in chain] == [FILES[3]]
    assert {said[name].outcome for name in ("controlNet", "controlNetType", "weighting")} == {NO_EFFECT}
    said, chain = imported(models, "leonardo", {"controlNet": True, "controlNetType": "POSE"})
    assert not chain
    assert said["controlNet"].outcome == NOT_YET
    assert "init image" in said["controlNet"].text


@pytest.mark.parametrize(
    ("name", "family", "file"),
    [
        ("depth", None, FILES[3]),
        ("Depth.pth", "sdxl", FILES[3]),
        ("pose", "sdxl", FILES[1]),
        ("pose", "sd15", FILES[2]),
        ("openpose", None, FILES[1]),
        ("", None, None),
        ("depth", "flux-dev", FILES[3]),
        ("pose", "flux-dev", None),
        ("tile", "sd15", None),
    ],
)
def test_files_are_found_by_kind_and_family(name: str, family: str | None, file: str | None) -> None:
    assert network_file(name, FILES, family) == file
