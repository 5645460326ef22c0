"""Leonardo's second version: a model with parameters, and the levels of its guidances."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from importing import DATA_URL, PROMPT, imported, nodes_in, of_class, outcomes, sampler
from naming import naming
from tessera.app.services.bodies.forms import bodies
from tessera.app.services.bodies.parameters import APPROXIMATED, MAPPED, NO_EFFECT, NOT_YET, UNKNOWN
from tessera.app.services.hosted.leonardo_v2 import GUIDANCES, STYLES
from tessera.app.services.hosted.styles import PHOTO_WORDS, WORDS
from tessera.app.services.services import SERVICES
from tessera.host.errors import GraphError
from tessera.host.schema.object_info import ObjectInfo

SERVICE = "leonardo-v2"
SD = {"model": "texture-sd"}
LEVELS = ["LOW", "MID", "HIGH", "ULTRA", "MAX"]


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectInfo]:
    yield from nodes_in(tmp_path_factory.mktemp("importer"))


def guidance(level: str | None = None) -> dict[str, Any]:
    return {"image": {"id": DATA_URL, "type": "UPLOADED"}} | ({"strength": level} if level else {})


def sent(**parameters: Any) -> dict[str, Any]:
    """A body as the document has it."""
    return SD | {"parameters": PROMPT | parameters, "public": False}


def test_parameters_count_wherever_they_stand(info: ObjectInfo) -> None:
    nested = sent(width=64, height=128, quantity=3, seed=5, guidances={"content": [guidance("HIGH")]})
    flat = SD | PROMPT | {"width": 64, "height": 128, "quantity": 3, "seed": 5, "content": [guidance("HIGH")]}
    drawing, lines, prompt = imported(SERVICE, nested, info)
    assert [node["type"] for node in drawing["nodes"]] == [
        node["type"] for node in imported(SERVICE, flat, info)[0]["nodes"]
    ]
    assert of_class(prompt, "EmptyLatentImage") == {"width": 64, "height": 128, "batch_size": 3}
    assert sampler(prompt)["seed"] == 5
    assert outcomes(lines)["content"] == APPROXIMATED
    assert {"parameters", "guidances"}.isdisjoint(outcomes(lines))


@pytest.mark.parametrize("wrapper", ["{}", '{{"json": {}}}', "curl https://example.com --data '{}'"])
def test_bodies_are_found_in_what_holds_them(wrapper: str) -> None:
    body = sent(width=64, guidances={"style": [guidance()]})
    (found,) = bodies(wrapper.format(json.dumps(body)).encode(), SERVICES[SERVICE])
    assert SERVICES[SERVICE].flat(found) == SERVICES[SERVICE].flat(body)


@pytest.mark.parametrize("name", GUIDANCES)
def test_levels_rise(name: str, info: ObjectInfo) -> None:
    levels = LEVELS if name == "style" else LEVELS[:3]
    scales = []
    for level in levels:
        prompt = imported(SERVICE, SD | PROMPT | {name: [guidance(level)]}, info)[2]
        scales.append(of_class(prompt, "TesseraImagePrompt")["scale"])
    assert scales == [0.1, 0.3, 0.5, 0.7, 0.9][: len(levels)]
    usual = imported(SERVICE, SD | PROMPT | {name: [guidance()]}, info)[2]
    assert of_class(usual, "TesseraImagePrompt")["scale"] == 0.3
    assert of_class(usual, "TesseraImagePrompt")["type"] == GUIDANCES[name]


@pytest.mark.parametrize(("level", "denoise"), [("LOW", 0.75), (None, 0.5), ("MID", 0.5), ("HIGH", 0.25)])
def test_an_image_to_start_from_is_kept_as_far_as_its_level(level: str, denoise: float, info: ObjectInfo) -> None:
    prompt = imported(SERVICE, SD | PROMPT | {"image_to_image": [guidance(level)]}, info)[2]
    assert sampler(prompt)["denoise"] == denoise


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"content": [guidance("MAX")]}, naming("content", "MAX", "LOW", "HIGH")),
        ({"style": [guidance("High")]}, naming("style", "High", "MAX")),
        ({"style": [{"image": "a"}]}, naming("style", "image", "id")),
        ({"style": [guidance()] * 5}, naming("style")),
        ({"quantity": 9}, naming("quantity", 9, 1, 8)),
        ({"contrast": "MID"}, naming("contrast", "MID", "MEDIUM")),
        ({"seed": 2**32}, naming("seed", 2**32)),
    ],
)
def test_what_the_document_does_not_allow_is_refused(parameters: dict[str, Any], line: str, info: ObjectInfo) -> None:
    with pytest.raises(GraphError, match=line):
        imported(SERVICE, sent(**parameters), info)


def test_styles_have_words_of_ours(info: ObjectInfo) -> None:
    assert set(STYLES.values()) <= {*WORDS, *PHOTO_WORDS}
    sketch = next(uuid for uuid, name in STYLES.items() if name == "SKETCH_BW")
    _, lines, prompt = imported(SERVICE, sent(style_ids=[sketch.upper()]), info)
    assert prompt[sampler(prompt)["positive"][0]]["inputs"]["text"] == f"{PROMPT['prompt']}, {WORDS['SKETCH_BW']}"
    assert outcomes(lines)["style_ids"] == APPROXIMATED
    said = next(line for line in imported(SERVICE, sent(style_ids=["gone"]), info)[1] if line.name == "style_ids")
    assert (said.outcome, '"gone"' in said.text) == (NOT_YET, True)


@pytest.mark.parametrize(
    ("model", "count"), [("flux-pro-2.0", 1), ("gemini-image-2", 1), ("phoenix-v1.0", 4), ("flux-dev", 4)]
)
def test_the_pages_of_the_models_differ_in_their_number_of_images(model: str, count: int, info: ObjectInfo) -> None:
    prompt = imported(SERVICE, PROMPT | {"model": model}, info)[2]
    assert of_class(prompt, "EmptyLatentImage", "EmptySD3LatentImage")["batch_size"] == count


def test_what_no_node_does_is_said(info: ObjectInfo) -> None:
    body = sent(mode="ULTRA", contrast="HIGH", width=70, tiling=True, prompt_enhance="AUTO", upscale_factor=2)
    drawing, lines, _ = imported(SERVICE, body, info)
    said = outcomes(lines)
    names = ("mode", "contrast", "width", "tiling", "prompt_enhance", "upscale_factor")
    assert [said[name] for name in names] == [NO_EFFECT, APPROXIMATED, APPROXIMATED, MAPPED, MAPPED, UNKNOWN]
    assert {"TesseraSeamlessModel", "AdjustContrast"} <= {node["type"] for node in drawing["nodes"]}
