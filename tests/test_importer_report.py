"""The report of an import against the graphs: every parameter is taken away in turn, and the request imported again.

Here a hundred generated bodies of each service are tried; `pytest -m requests` tries 2,000.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from random_bodies import GUIDANCES, IMAGES, NAMED, STYLE_IDS, Values
from tessera.app.registry import node_classes
from tessera.app.services.convert import Line, convert
from tessera.app.services.images import RequestImages
from tessera.app.services.parameters import APPROXIMATED, MAPPED, MEANINGLESS, NO_EFFECT, NOT_YET, UNKNOWN
from tessera.app.services.report import Report
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.schema.object_info import ObjectInfo, inputs_of

FILES = {
    "checkpoints": ["v1-5-moss.safetensors", "base_xl.safetensors", "xl_refiner.safetensors", "FLUX.1-dev.safetensors"],
    "controlnet": ["sd15_canny.safetensors", "xl_depth.safetensors", "flux_tile.safetensors"],
    "ipadapter": ["flux-ip-adapter.safetensors"],
    "loras": ["zigzag.safetensors", "moss-5.safetensors"],
    "vae": ["bright.safetensors", "ae.safetensors"],
    "embeddings": ["zig.safetensors"],
    "upscale_models": ["twice.pth"],
    "safety_checker": ["nsfw/config.json"],
    "background_removal": ["cut.safetensors"],
    "diffusion_models": ["flux1-dev.safetensors", "FLUX.1-Krea-dev.safetensors"],
    "text_encoders": ["clip_l.safetensors", "t5xxl.safetensors"],
}
MODELS = ["texture-sd", "texture-flux", "v1-5-moss", "base_xl", "flux.1-dev", "flux1-dev", "fast-flux", "model_abc"]


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectInfo]:
    root = tmp_path_factory.mktemp("report")
    folder_paths.configure(str(root / "models"), str(root / "input"), str(root / "output"))
    for folder, names in FILES.items():
        (root / "models" / folder).mkdir(parents=True)
        for name in names:
            (root / "models" / folder / name).parent.mkdir(exist_ok=True)
            (root / "models" / folder / name).touch()
    yield ObjectInfo(node_classes())
    folder_paths.configure()


VALUES = Values(
    texts={
        **dict.fromkeys(["modelId", "model_id", "checkpoint", "baseModelId", "model"], MODELS),
        **dict.fromkeys(["prompt", "negative_prompt", "negativePrompt", "prompt_2"], ["moss", "white zigzag", ""]),
        "lora_model": ["zigzag", "gone", "zigzag, moss-5"],
        "vae": ["bright", "gone"],
        "controlnet": ["canny", "depth", "gone"],
        "aspectRatio": ["1:1", "16:9"],
        "modelEpoch": ["5", "6"],
        **dict.fromkeys(["controlnet_model", "controlnet_type"], ["canny", "canny,openpose", "gone"]),
        "modality": ["canny", "depth:0.5,pose:1.0", "canny:0.3", "landscape", "tile"],
        "loras": ["zigzag", "moss-5", "gone"],
        "style_ids": STYLE_IDS,
    },
    objects={
        **dict.fromkeys(NAMED, GUIDANCES),
        "concepts": [{"modelId": "zigzag", "scale": 0.5}, {"modelId": "gone"}],
        "elements": [{"akUUID": "zigzag", "weight": 0.5}],
        "userElements": [{"userLoraId": "moss-5", "weight": 1}],
        "controlnets": [
            {"initImageId": IMAGES[0], "preprocessorId": 19, "weight": 0.5},
            {"initImageId": IMAGES[1], "preprocessorId": 67, "strengthType": "Max"},
            {"initImageId": IMAGES[1], "preprocessorId": 5},
        ],
    },
    loras=["zigzag", "moss", "gone"],
)


def imported(name: str, sent: dict[str, Any], info: ObjectInfo, **options: Any) -> tuple[Any, list[Line]]:
    """The whole graph as one nested value, and the report."""
    drawing, lines = convert(SERVICES[name], sent, info, RequestImages({}), 1, **options)
    prompt = to_prompt(Workflow(ui_graph=json.loads(json.dumps(drawing))), info)
    whole: dict[str, Any] = {}

    def nested(number: str) -> str:
        if number not in whole:
            node = prompt[number]
            inputs = {
                key: [nested(each[0]), each[1]] if isinstance(each, list) else each
                for key, each in node["inputs"].items()
            }
            whole[number] = str(hash(json.dumps([node["class_type"], inputs], sort_keys=True)))
        return whole[number]

    ends = [number for number, node in prompt.items() if info[node["class_type"]]["output_node"]]
    return sorted(map(nested, ends)), lines


def check(name: str, sent: dict[str, Any], info: ObjectInfo, options: dict[str, Any]) -> int:
    """Compare what is said of each parameter with the graph without it; how many could be compared."""
    graph, lines = imported(name, sent, info, **options)
    compared = 0
    for line in (each for each in lines if each.name in sent and each.outcome != UNKNOWN):
        try:
            # What would be said of it does not matter, and takes the most time.
            with patch.object(Report, "lines", return_value=[]):
                without, _ = imported(name, {key: v for key, v in sent.items() if key != line.name}, info, **options)
        except GraphError:
            continue
        compared += 1
        told_usual = line.text.endswith("as by default") or "as by default; deprecated" in line.text
        told_usual |= line.text.startswith(("off", "empty"))
        if without == graph:
            assert line.outcome != MAPPED or told_usual, (line, sent)
        else:
            assert line.outcome in (MAPPED, APPROXIMATED, NOT_YET), (line, sent)
            assert not told_usual or line.text == "off", (line, sent)
    return compared


def check_strict(name: str, sent: dict[str, Any], info: ObjectInfo, options: dict[str, Any]) -> None:
    """`--strict` refuses the lines that say so, and each of them is of a parameter that is sent."""
    _, lines = imported(name, sent, info, **options)
    refused = [line for line in lines if line.refused]
    assert {line.name for line in refused} <= sent.keys()
    assert all(line.outcome not in (MAPPED, MEANINGLESS) for line in refused)
    always = {line.name for line in lines if line.name in sent and line.outcome in (APPROXIMATED, NOT_YET, UNKNOWN)}
    assert always <= {line.name for line in refused}
    try:
        imported(name, sent, info, strict=True, **options)
    except GraphError as error:
        assert [line.partition(":")[0] for line in error.lines] == [line.name for line in refused]
    else:
        assert not refused


def try_bodies(name: str, count: int, info: ObjectInfo) -> None:
    draw = random.Random(name)
    tried = compared = attempts = 0
    while tried < count:
        attempts += 1
        sent = VALUES.body(draw, name)
        options = {"model": draw.choice([None, None, None, "texture-sd", "texture-flux", "base_xl"])}
        try:
            convert(SERVICES[name], sent, info, RequestImages({}), 1, **options)
        except GraphError:
            assert attempts < 40 * count, "nearly every body is refused"
            continue
        tried += 1
        compared += check(name, sent, info, options)
        check_strict(name, sent, info, options)
    assert compared > 2 * count


@pytest.mark.parametrize("name", SERVICES)
def test_the_report_says_what_the_graph_does(name: str, info: ObjectInfo) -> None:
    try_bodies(name, 100, info)


@pytest.mark.requests
@pytest.mark.parametrize("name", SERVICES)
def test_the_report_says_what_the_graph_does_of_many_bodies(name: str, info: ObjectInfo) -> None:
    try_bodies(name, 2000, info)


@pytest.mark.parametrize("name", SERVICES)
def test_every_place_of_a_table_is_an_input_that_some_request_sets(name: str, info: ObjectInfo) -> None:
    draw = random.Random(name)
    unseen = {place for row in SERVICES[name].table().values() for place in row.to.places}
    # Without upscale models, other nodes enlarge; without checkpoints, demo models stand in.
    without: list[set[str]] = [set(), {"UpscaleModelLoader"}, {"CheckpointLoaderSimple", "UNETLoader"}]
    offered: list[Any] = [{key: entry for key, entry in info.items() if key not in absent} for absent in without]
    for _ in range(3000):
        nodes, options = draw.choice(offered), {"background_model": draw.choice(["", "cut"])}
        try:
            drawing, _ = convert(SERVICES[name], VALUES.body(draw, name), nodes, RequestImages({}), 1, **options)
        except GraphError:
            continue
        for node in drawing["nodes"]:
            role = re.sub(r" \d+", "", node["title"]).lower()
            unseen -= {f"{role}.{each}" for each in inputs_of(info[node["type"]])} if node["type"] in info else set()
        if not unseen:
            return
    assert not unseen


def said(name: str, sent: dict[str, Any], info: ObjectInfo, **options: Any) -> dict[str, Line]:
    return {line.name: line for line in imported(name, {"prompt": "moss"} | sent, info, **options)[1]}


@pytest.mark.parametrize(
    ("name", "sent", "refused"),
    [
        ("modelslab", {"strength": 0.2}, ["strength"]),
        ("modelslab", {"strength": 0.2, "init_image": IMAGES[0]}, []),
        ("octoai", {"checkpoint": "base_xl", "strength": 0.8, "high_noise_frac": 0.8}, []),
        ("octoai", {"checkpoint": "base_xl", "strength": 0.7}, ["strength"]),
        ("leonardo", {}, []),
        ("leonardo", {"alchemy": True}, ["alchemy"]),
        ("leonardo", {"ultra": True, "fantasyAvatar": True}, ["fantasyAvatar", "ultra"]),
        ("leonardo", {"alchemy": False, "ultra": False, "expandedDomain": False, "public": True}, []),
    ],
)
def test_strict_refuses_what_does_nothing_and_no_default(
    name: str, sent: dict[str, Any], refused: list[str], info: ObjectInfo
) -> None:
    lines = imported(name, {"prompt": "moss"} | sent, info)[1]
    assert [line.name for line in lines if line.refused] == refused


def test_what_a_value_needs_is_told(info: ObjectInfo) -> None:
    assert str(said("modelslab", {"strength": 0.2}, info)["strength"]) == (
        "strength: without effect here; needs init_image"
    )
    usual = said("modelslab", {"samples": 1}, info)["samples"]
    assert (usual.outcome, usual.text.endswith("as by default")) == (MAPPED, True)
    assert said("modelslab", {"algorithm_type": "dpmsolver++"}, info)["algorithm_type"].outcome == NO_EFFECT
