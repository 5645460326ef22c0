"""`tessera import`: request bodies become workflows that are valid, whole, and do what the request asked."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from importing import (
    BODIES,
    DATA_URL,
    PROMPT,
    REFERENCE,
    SCENARIO,
    encoded,
    imported,
    nodes_in,
    of_class,
    outcomes,
    sampler,
)
from PIL import Image
from tessera.app.cli.main import main
from tessera.app.services.bodies.parameters import APPROXIMATED, FAMILIES, MAPPED, MEANINGLESS, UNKNOWN
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.graph.validation import validate
from tessera.host.schema.object_info import ObjectInfo

EVERY = [pytest.param(name, body, id=f"{name}-{i}") for name, bodies in BODIES.items() for i, body in enumerate(bodies)]


bodies = pytest.mark.parametrize(("name", "body"), EVERY)


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectInfo]:
    yield from nodes_in(tmp_path_factory.mktemp("importer"))


@pytest.fixture
def own_folders() -> Iterator[None]:
    """The command line sets its own folders; afterwards they are those of `info` again."""
    before = folder_paths.models_dir, folder_paths.get_input_directory(), folder_paths.get_output_directory()
    yield
    folder_paths.configure(*before)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The images that names in the bodies stand for."""
    image = tmp_path_factory.mktemp("images") / "image.jpg"
    image.write_bytes(base64.b64decode(encoded(kind="JPEG")))
    return dict.fromkeys(["asset_1", "asset_2", "a", "b", "https://example.com/a.png?x=1"], image)


@bodies
def test_request_becomes_a_valid_workflow(
    name: str, body: dict[str, Any], info: ObjectInfo, files: dict[str, Path]
) -> None:
    _, lines, prompt = imported(name, body, info, files)
    # A fresh one: the lists of files are read anew.
    checked, outputs = validate(prompt, ObjectInfo(info.classes))
    assert len(checked) == len(prompt)
    assert len(outputs) == (3 if "texture" in body else 1 + bool(body.get("intermediateImages")))
    said = outcomes(lines)
    assert {key for key, value in SERVICES[name].flat(body).items() if value is not None} <= said.keys()


@bodies
def test_the_report_is_true(name: str, body: dict[str, Any], info: ObjectInfo, files: dict[str, Path]) -> None:
    """What is said to be somewhere is there, with its value where nothing is said of a change."""
    _, lines, prompt = imported(name, body, info, files)
    known, body = SERVICES[name].table(), SERVICES[name].flat(body)
    for line in lines:
        places = re.findall(r"node (\d+) (\w+)\.(\w+)", line.text)
        found = [prompt[number]["inputs"][entry] for number, _, entry in places]
        assert all(prompt[number]["class_type"] == kind for number, kind, _ in places)
        whole, _, inner = line.name.partition("[")
        assert line.outcome == UNKNOWN or whole in known
        assert line.outcome != UNKNOWN or inner or whole not in known
        assert line.text or line.outcome in (MAPPED, APPROXIMATED)
        is_plain = line.outcome == MAPPED and line.name in body and not known[line.name].how and len(found) == 1
        # With unzoom, the size is that of the image and its margin together.
        if is_plain and known[line.name].type in (int, float) and "unzoom" not in body:
            assert float(body[line.name]) == found[0], line


@bodies
def test_drawing_is_whole_and_runs_from_left_to_right(
    name: str, body: dict[str, Any], info: ObjectInfo, files: dict[str, Path]
) -> None:
    drawing, _, prompt = imported(name, body, info, files)
    nodes = {node["id"]: node for node in drawing["nodes"]}
    assert drawing["last_node_id"] == max(nodes)
    for number, source, out_slot, target, in_slot, kind in drawing["links"]:
        output, entry = nodes[source]["outputs"][out_slot], nodes[target]["inputs"][in_slot]
        assert number in output["links"]
        assert entry["link"] == number
        assert output["type"] == entry["type"] == kind
        assert nodes[source]["pos"][0] + nodes[source]["size"][0] < nodes[target]["pos"][0]
        assert prompt[str(target)]["inputs"][entry["name"]] == [str(source), out_slot]
    boxes = [
        (*node["pos"], node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1]) for node in nodes.values()
    ]
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            apart = one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]
            assert apart


def test_values_reach_the_nodes(info: ObjectInfo) -> None:
    body = SCENARIO | {"seed": "7", "width": 128, "height": 64, "numSamples": 2, "numInferenceSteps": 9, "guidance": 4}
    _, lines, prompt = imported("scenario-texture", body | {"negativePrompt": "blur"}, info)
    sampled = sampler(prompt)
    assert {key: sampled[key] for key in ("seed", "steps", "cfg", "denoise")} == {
        "seed": 7,
        "steps": 9,
        "cfg": 4,
        "denoise": 1.0,
    }
    assert of_class(prompt, "EmptyLatentImage") == {"width": 128, "height": 64, "batch_size": 2}
    texts = [prompt[sampled[side][0]]["inputs"]["text"] for side in ("positive", "negative")]
    assert texts == [PROMPT["prompt"], "blur"]
    assert prompt[sampled["model"][0]]["class_type"] == "TesseraSeamlessModel"
    assert set(outcomes(lines).values()) == {MAPPED, MEANINGLESS}
    line = next(line for line in lines if line.name == "numInferenceSteps")
    node_id = next(node_id for node_id, node in prompt.items() if node["class_type"] == "KSampler")
    assert str(line) == f"numInferenceSteps: mapped; node {node_id} KSampler.steps"


def test_strict_refuses_what_is_not_done(info: ObjectInfo) -> None:
    imported("scenario-texture", SCENARIO | {"intermediateImages": False, "hideResults": True}, info, strict=True)
    with pytest.raises(GraphError) as caught:
        imported(
            "leonardo", PROMPT | {"modelId": "x", "presetStyle": "ANIME", "contrast": 2.5, "typo": 1}, info, strict=True
        )
    assert [line.partition(":")[0] for line in caught.value.lines] == ["contrast", "modelId", "presetStyle", "typo"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(DATA_URL),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", SERVICES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_object_gives_a_valid_workflow_or_lines(name: str, info: ObjectInfo, data: st.DataObject) -> None:
    known = data.draw(st.sampled_from(BODIES[name]))
    changes = data.draw(
        st.dictionaries(st.sampled_from(list(SERVICES[name].table())) | st.text(max_size=5), JSON, max_size=3)
    )
    options = {"strict": data.draw(st.booleans()), "family": data.draw(st.sampled_from([None, *FAMILIES]))}
    try:
        _, lines, prompt = imported(name, known | changes, info, **options)
    except GraphError as error:
        assert error.lines
        assert all(line.isprintable() and not line.startswith("node ") for line in error.lines)
    else:
        assert all(str(line).isprintable() for line in lines)
        validate(prompt, ObjectInfo(info.classes))


TINY = {"width": 64, "height": 64, "numInferenceSteps": 2}


SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "scenario-texture": ("scenario-texture", SCENARIO | TINY | {"numSamples": 2}),
    "flux": (
        "scenario-texture",
        SCENARIO
        | TINY
        | {"modelId": "flux.1-dev", "negativePrompt": "red", "negativePromptStrength": 4, "numSamples": 1},
    ),
    "scenario-ip-adapter": ("scenario-ip-adapter", REFERENCE | TINY | {"numSamples": 1}),
    "modelslab": (
        "modelslab",
        PROMPT | {"width": 64, "height": 64, "num_inference_steps": 21, "init_image": DATA_URL, "strength": 0.1},
    ),
    "leonardo": ("leonardo", PROMPT | {"width": 64, "height": 64, "num_images": 1, "num_inference_steps": 10}),
}


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize(("name", "body"), SMALL.values(), ids=SMALL)
def test_imported_request_runs_on_the_demo_model(
    name: str, body: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, workflow = tmp_path / "request.json", tmp_path / "workflow.json"
    request.write_text(json.dumps(body))
    folders = ["--input-dir", str(tmp_path / "input"), "--models-dir", str(tmp_path)]
    assert main(["import", name, str(request), "-o", str(workflow), "--seed", "3", *folders]) == 0
    said = capsys.readouterr().out
    assert "prompt: mapped; node " in said
    note = json.loads(workflow.read_text())["nodes"][-1]
    assert note["widgets_values"] == [said.rstrip("\n")]
    assert main(["run", str(workflow), "--device", "cpu", "--output-dir", str(tmp_path / "out"), *folders]) == 0
    saved = capsys.readouterr().out.splitlines()
    assert len(saved) == body.get("numSamples", 1)
    with Image.open(saved[0]) as image:
        assert image.size == (64, 64)


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("{", [], "not JSON"),
        ("[" * 100_000, [], "nested too deeply"),
        ("[]", [], "expected the JSON object"),
        ("[" * 100 + "]" * 100, [], "lists more than 32 deep"),
        ('{"prompt": "\\ud800", "modelId": "a"}', [], "prompt: found half of a surrogate pair"),
        ("{}", [], "prompt: missing"),
        (json.dumps(SCENARIO), ["--image", "x"], "expected NAME=FILE"),
        (json.dumps(SCENARIO), ["--seed", "-1"], "--seed: found -1"),
        (json.dumps(SCENARIO), ["-o", "."], "expected the file to write"),
        (json.dumps(SCENARIO), ["-o", "/"], "expected the file to write"),
        (json.dumps(SCENARIO | {"modelId": "flux", "negativePrompt": "a"}), [], "negativePromptStrength: missing"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(
    content: str, options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = tmp_path / "request.json"
    request.write_text(content)
    code = main(["import", "scenario-texture", str(request), "-o", str(tmp_path / "w.json"), *options])
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "w.json").exists()


def test_report_has_a_line_for_each_parameter(info: ObjectInfo) -> None:
    body = SCENARIO | {"baseModelId": "texture-sd", "modelId": "a\nb\u2028c", "modelEpoch": "\r1", "new\nname": 1}
    drawing, lines, _ = imported("scenario-texture", body, info)
    assert all(str(line).isprintable() for line in lines)
    assert len(drawing["nodes"][-1]["widgets_values"][0].splitlines()) == len(lines)


def test_report_says_what_is_taken_only_where_nothing_is_given(info: ObjectInfo) -> None:
    given = PROMPT | {"width": 512, "height": 512, "samples": 1, "seed": 5, "scheduler": "DDIMScheduler"}
    _, lines, _ = imported("modelslab", given, info)
    assert not [line for line in lines if "Left out" in line.text or "no default" in line.text]
    assert not [line for line in lines if not line.text or line.text.endswith((";", " "))]
