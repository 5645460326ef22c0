"""What the report says of names inside parameters: those of objects in lists, and entries of lists of names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from importing import DATA_URL, PROMPT, SCENARIO, encoded, imported, nodes_in, with_files
from tessera.app.services.bodies.nested import leaves, with_value, without
from tessera.app.services.bodies.parameters import APPROXIMATED, MAPPED, MEANINGLESS, NO_EFFECT, NOT_YET, UNKNOWN
from tessera.host.errors import GraphError
from tessera.host.schema.object_info import ObjectInfo

STYLE = {"initImageId": DATA_URL, "preprocessorId": 67}


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectInfo]:
    yield from nodes_in(tmp_path_factory.mktemp("importer"))


def said(name: str, body: dict[str, Any], info: Any, **options: Any) -> dict[str, tuple[str, str]]:
    return {line.name: (line.outcome, line.text) for line in imported(name, body, info, **options)[1]}


@pytest.mark.parametrize(
    ("more", "name", "outcome", "text"),
    [
        ({"strengthType": "Max"}, "strengthType", APPROXIMATED, "TesseraImagePrompt.scale"),
        ({"strengthType": "High"}, "strengthType", MAPPED, "as by default"),
        ({"strengthType": "Most"}, "strengthType", NOT_YET, '"Most" is none of "Low"'),
        ({"strengthType": "Max", "weight": 0.3}, "strengthType", NO_EFFECT, "weight goes before it"),
        ({"influence": 1}, "influence", MAPPED, "as by default"),
        ({"influence": 0.5}, "influence", APPROXIMATED, "TesseraImagePrompt.scale"),
        ({"initImageType": "UPLOADED"}, "initImageType", MEANINGLESS, "file"),
        ({"strenghtType": "Max"}, "strenghtType", UNKNOWN, '"strengthType"'),
    ],
)
def test_every_name_in_an_object_has_a_line(
    more: dict[str, Any], name: str, outcome: str, text: str, info: ObjectInfo
) -> None:
    lines = said("leonardo", PROMPT | {"controlnets": [STYLE | more]}, info)
    assert lines[f"controlnets[0].{name}"][0] == outcome
    assert text in lines[f"controlnets[0].{name}"][1]
    assert lines["controlnets[0].initImageId"][0] == APPROXIMATED


def test_names_in_what_cannot_be_drawn_are_told_as_the_whole(info: ObjectInfo) -> None:
    """The list is not drawn, and the deprecated parameters that it hides would be."""
    old = {"controlNet": True, "controlNetType": "CANNY", "init_image_id": DATA_URL}
    item = STYLE | {"strengthType": "Max"}
    flux = PROMPT | {"modelId": "texture-flux", "controlnets": [item]} | old
    lines = said("leonardo", flux, info)
    names = ("controlnets", "controlnets[0].preprocessorId", "controlnets[0].strengthType")
    assert [lines[name][0] for name in names] == [NOT_YET] * 3
    beside = said("leonardo", flux | {"controlnets": [item | {"weight": 0.3}]}, info)
    assert beside[names[2]] == (NO_EFFECT, "weight goes before it")


def test_names_are_told_by_the_place_of_their_object(info: ObjectInfo) -> None:
    files = with_files(info, LoraLoader=["b.safetensors"])
    concepts = [{"modelId": "gone", "scale": 0.3}, {"modelId": "b", "scale": 1}, {"modelId": "b", "scale": 0.4}]
    lines = said("scenario-texture", SCENARIO | {"concepts": concepts}, files)
    # What does nothing as a whole is told once.
    assert lines["concepts"][0] == NOT_YET
    assert not [name for name in lines if name.startswith("concepts[0]")]
    assert lines["concepts[1].scale"] == (MAPPED, "as by default")
    assert "LoraLoader.strength_model" in lines["concepts[2].scale"][1]


def test_names_of_inner_objects_have_dots(info: ObjectInfo) -> None:
    style = [{"image": {"id": DATA_URL, "type": "GENERATED"}, "strength": "MID", "order": 1}]
    lines = said("leonardo-v2", {"model": "texture-sd", "parameters": PROMPT | {"guidances": {"style": style}}}, info)
    names = ("style[0].image.id", "style[0].image.type", "style[0].strength", "style[0].order")
    assert [lines[name][0] for name in names] == [APPROXIMATED, MEANINGLESS, MAPPED, NO_EFFECT]


def test_strict_refuses_names_that_do_nothing(info: ObjectInfo) -> None:
    files: Any = with_files(info, LoraLoader=["b.safetensors"])
    body = SCENARIO | {"concepts": [{"modelId": "b", "scale": 1}]}
    imported("scenario-texture", body, files, strict=True)
    with pytest.raises(GraphError, match=r"concepts\[0\].weight: unknown") as caught:
        imported("scenario-texture", SCENARIO | {"concepts": [{"modelId": "b", "weight": 1}]}, files, strict=True)
    assert len(caught.value.lines) == 1


def test_words_and_scales_that_do_nothing_beside_others_are_named(info: ObjectInfo) -> None:
    scales = {"ipAdapterImages": [DATA_URL], "ipAdapterScales": [0.5, 0.6, 0.7]}
    outcome, text = said("scenario-ip-adapter", SCENARIO | scales, info)["ipAdapterScales"]
    assert (outcome, "behind the first 1 have no image" in text) == (MAPPED, True)
    samples = {"teal": [encoded()], "cloud": [encoded()]}
    outcome, text = said("octoai", PROMPT | {"transfer_images": samples}, info)["transfer_images"]
    assert (outcome, '"cloud"' in text) == (APPROXIMATED, True)
    flux = PROMPT | {"checkpoint": "texture-flux", "transfer_images": samples}
    outcome, text = said("octoai", flux, info)["transfer_images"]
    assert (outcome, '"cloud"' in text, "IP-Adapter" in text) == (NOT_YET, True, True)


def test_places_in_objects() -> None:
    value = {"image": {"id": "a", "type": None}, "strength": 1}
    assert list(leaves(value)) == [(("image", "id"), "a"), (("strength",), 1)]
    assert without(value, ("image", "id")) == {"image": {"type": None}, "strength": 1}
    assert with_value(value, ("image", "id"), "b") == {"image": {"id": "b", "type": None}, "strength": 1}
    assert value == {"image": {"id": "a", "type": None}, "strength": 1}
