"""The report of an import against the graphs: every parameter is taken away in turn, and the request imported again.

Here some generated bodies of each endpoint are tried; `pytest -m requests` tries 2,000 of each service, TESSERA_REPORTS
another number.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from random_bodies import GUIDANCES, IMAGES, NAMED, NESTED, STYLE_IDS, Values
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.bodies.parameters import APPROXIMATED, MAPPED, MEANINGLESS, NO_EFFECT, NOT_YET, UNKNOWN
from tessera.app.services.convert import Line, convert
from tessera.app.services.report import Report
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.schema.object_info import ObjectInfo, inputs_of

FEW, MANY = 40, int(os.environ.get("TESSERA_REPORTS", "2000"))
USUAL = "as by default"
ACTS = (MAPPED, APPROXIMATED, NOT_YET)
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
        **NESTED,
        "userElements": [{"userLoraId": "moss-5", "weight": 1}],
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


class Imported:
    """A body imported, and imported again without parts of it."""

    def __init__(self, name: str, sent: dict[str, Any], info: ObjectInfo, options: dict[str, Any]) -> None:
        self.name, self.sent, self.info, self.options = name, sent, info, options
        self.graph, self.lines = imported(name, sent, info, **options)

    def again(self, sent: dict[str, Any]) -> Any:
        """The graph of another body; None where the service refuses it."""
        try:
            # What would be said of it does not matter, and takes the most time.
            with patch.object(Report, "lines", return_value=[]):
                return imported(self.name, sent, self.info, **self.options)[0]
        except GraphError:
            return None

    def check(self) -> int:
        """Compare what is said of each parameter with the graph without it; how many could be compared."""
        compared = 0
        for line in (each for each in self.lines if each.name in self.sent and each.outcome != UNKNOWN):
            without = self.again({key: each for key, each in self.sent.items() if key != line.name})
            if without is None:
                continue
            compared += 1
            told_usual = line.text.endswith(USUAL) or f"{USUAL}; deprecated" in line.text
            told_usual |= line.text.startswith(("off", "empty"))
            if without == self.graph:
                assert line.outcome != MAPPED or told_usual, (line, self.sent)
            else:
                assert line.outcome in ACTS, (line, self.sent)
                assert not told_usual or line.text == "off", (line, self.sent)
        return compared

    def check_parts(self) -> int:
        """Compare what is said of the named values in parameters with the graph without them; how many could be."""
        said, compared = {line.name: line for line in self.lines}, 0
        for parameter, value in self.sent.items():
            for place, part, other in parts(value):
                without = self.again(self.sent | {parameter: other})
                line, whole = said.get(parameter + place), said[parameter]
                compared += without is not None
                if without != self.graph:
                    acts = line or whole
                    assert acts.outcome in ACTS, (acts, self.sent)
                    assert not acts.text.endswith(USUAL), (acts, self.sent)
                elif line:
                    idle = line.outcome in (MEANINGLESS, NO_EFFECT, NOT_YET, UNKNOWN)
                    assert idle or line.text.endswith(USUAL), (line, self.sent)
                else:
                    # What does nothing as a whole is told so, by its name where others act.
                    named = any(f'"{each}"' in whole.text for each in (place[1:], part))
                    assert named or whole.outcome in (NO_EFFECT, NOT_YET), (whole, self.sent)
        return compared

    def check_strict(self) -> None:
        """`--strict` refuses the lines that say so, and each of them is of a parameter that is sent."""
        refused = [line for line in self.lines if line.refused]
        assert {line.name.partition("[")[0] for line in refused} <= self.sent.keys()
        assert all(line.outcome not in (MAPPED, MEANINGLESS) for line in refused)
        always = {line.name for line in self.lines if line.outcome in (APPROXIMATED, NOT_YET, UNKNOWN)}
        assert always & self.sent.keys() <= {line.name for line in refused}
        try:
            imported(self.name, self.sent, self.info, strict=True, **self.options)
        except GraphError as error:
            assert [line.partition(":")[0] for line in error.lines] == [line.name for line in refused]
        else:
            assert not refused


def parts(value: Any) -> Iterator[tuple[str, Any, Any]]:
    """The places of the named values in a value, those values, and the value without each."""
    if isinstance(value, list):
        for place, item in enumerate(value):
            for name, part, other in parts(item):
                yield f"[{place}]{name}", part, [*value[:place], other, *value[place + 1 :]]
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict):
                for name, part, other in parts(item):
                    yield f".{key}{name}", part, {**value, key: other}
            else:
                yield f".{key}", item, {name: each for name, each in value.items() if name != key}


def try_bodies(name: str, count: int, info: ObjectInfo) -> None:
    draw = random.Random(name)
    tried = compared = attempts = 0
    while tried < count:
        attempts += 1
        sent = VALUES.body(draw, name)
        options = {"model": draw.choice([None, None, None, "texture-sd", "texture-flux", "base_xl"])}
        try:
            made = Imported(name, sent, info, options)
        except GraphError:
            assert attempts < 40 * count, "nearly every body is refused"
            continue
        tried += 1
        compared += made.check() + made.check_parts()
        made.check_strict()
    assert compared > count


@pytest.mark.parametrize("name", SERVICES)
def test_the_report_says_what_the_graph_does(name: str, info: ObjectInfo) -> None:
    try_bodies(name, FEW, info)


@pytest.mark.requests
@pytest.mark.parametrize("name", SERVICES)
def test_the_report_says_what_the_graph_does_of_many_bodies(name: str, info: ObjectInfo) -> None:
    try_bodies(name, math.ceil(MANY / sum(_provider(each) == _provider(name) for each in SERVICES)), info)


def _provider(name: str) -> str:
    return name.partition("-")[0]


@pytest.mark.parametrize("name", SERVICES)
def test_every_place_of_a_table_is_an_input_that_some_request_sets(name: str, info: ObjectInfo) -> None:
    draw = random.Random(name)
    unseen = {place for row in SERVICES[name].table().values() for place in row.to.places}
    # Without upscale models, other nodes enlarge; without checkpoints, demo models stand in.
    without: list[set[str]] = [set(), {"UpscaleModelLoader"}, {"CheckpointLoaderSimple", "UNETLoader"}]
    offered: list[Any] = [{key: entry for key, entry in info.items() if key not in absent} for absent in without]
    for _ in range(3000):
        nodes, cutter = draw.choice(offered), draw.choice(["", "cut"])
        try:
            body, images = VALUES.body(draw, name), RequestImages({})
            drawing, _ = convert(SERVICES[name], body, nodes, images, 1, background_model=cutter)
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
