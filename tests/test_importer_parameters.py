"""The tables of service parameters against the documents, as tests/data/service_parameters.json transcribes them."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tessera.app.cli.main import main
from tessera.app.services import pages
from tessera.app.services.bodies.parameters import (
    APPROXIMATED,
    FAMILIES,
    MAPPED,
    MEANINGLESS,
    NO_EFFECT,
    NOT_YET,
    WORDS,
    Parameter,
)
from tessera.app.services.drawing.model_names import family_of
from tessera.app.services.hosted.styles import PHOTO_WORDS
from tessera.app.services.services import SERVICES
from tessera.host.errors import GraphError, listed

ROOT = Path(__file__).parents[1]
DOCUMENTS = json.loads((ROOT / "tests" / "data" / "service_parameters.json").read_text(encoding="utf-8"))

services = pytest.mark.parametrize("name", DOCUMENTS)


def smallest(name: str) -> dict[str, Any]:
    """What is required, and what the service does not work without beside it."""
    return dict.fromkeys(DOCUMENTS[name]["required"], "moss") | DOCUMENTS[name].get("beside", {})


def refused(name: str, request: Any, family: str | None = None) -> list[str]:
    with pytest.raises(GraphError) as caught:
        SERVICES[name].read(request, family)
    return caught.value.lines


@services
def test_table_has_every_documented_parameter_and_no_other(name: str) -> None:
    assert sorted(SERVICES[name].table()) == sorted(DOCUMENTS[name]["names"])
    assert len(SERVICES[name].table()) == len(DOCUMENTS[name]["names"])


@services
def test_every_row_says_where_a_value_goes_or_why_it_does_not(name: str) -> None:
    for row in SERVICES[name].table().values():
        assert row.type in WORDS or row.choices
        assert row.outcome in (MAPPED, APPROXIMATED, NOT_YET, NO_EFFECT, MEANINGLESS)
        assert bool(row.to.places) == (row.outcome in (MAPPED, APPROXIMATED)), row.name
        assert row.how or row.outcome == MAPPED, row.name
        assert all(place.count(".") == 1 for place in row.to.places)


@services
def test_required_and_deprecated_are_as_documented(name: str) -> None:
    rows = SERVICES[name].table().values()
    assert sorted(row.name for row in rows if row.required) == sorted(DOCUMENTS[name]["required"])
    assert sorted(row.name for row in rows if row.to.instead) == sorted(DOCUMENTS[name]["deprecated"])
    for missing in DOCUMENTS[name]["required"]:
        others = {key: value for key, value in smallest(name).items() if key != missing}
        assert refused(name, others) == [f"{missing}: missing; expected text"]


@services
def test_omitted_parameters_get_the_documented_defaults(name: str) -> None:
    request = SERVICES[name].read(smallest(name))
    for parameter, default in DOCUMENTS[name]["defaults"].items():
        assert request[parameter] == default, parameter
    assert request.given == smallest(name).keys()


def bodies_with(name: str, row: Parameter, value: Any) -> dict[str, Any]:
    """A request that sets one number, beside what it cannot be without."""
    beside = {"lora_model": "a"} if row.name == "lora_strength" else {}
    # Eight images need sides up to 768.
    small = {"width": 768} if name == "leonardo" and row.name == "num_images" else {}
    return smallest(name) | beside | small | {row.name: [value] if row.type == list[float] else value}


def beyond(row: Parameter, bound: float, sign: int) -> list[float]:
    """What lies just outside of a range; infinity and the next number of double precision among it."""
    if row.type in (int, int | list[int]):
        return [bound + sign * (row.step or 1), bound + sign * 10**30]
    return [math.nextafter(bound, sign * math.inf), bound + sign, sign * math.inf]


RANGED = [
    pytest.param(name, row, family, id=f"{name}-{row.name}-{family}")
    for name, service in SERVICES.items()
    for row in service.table().values()
    for family in (None, *row.by_family.within)
    if row.range_for(family) != (None, None) and row.type != dict[str, float]
    # Of one image, RepeatLatentBatch makes 64 at most.
    if (name, row.name) != ("scenario-img2img-texture", "numSamples")
]


@services
def test_ranges_are_as_documented(name: str) -> None:
    for parameter, (low, high) in DOCUMENTS[name]["ranges"].items():
        row = SERVICES[name].table()[parameter]
        assert high is None or row.within[1] == high, parameter
        assert low is None or row.within[0] == low, parameter
    for parameter, ranges in DOCUMENTS[name]["family_ranges"].items():
        found = {family: list(within) for family, within in SERVICES[name].table()[parameter].by_family.within.items()}
        assert found == ranges, parameter
    undocumented = {row.name for row in SERVICES[name].table().values() if row.by_family.within}
    assert undocumented == DOCUMENTS[name]["family_ranges"].keys()


@pytest.mark.parametrize(("name", "row", "family"), RANGED)
def test_number_is_taken_up_to_the_ends_of_its_range_and_no_further(
    name: str, row: Parameter, family: str | None
) -> None:
    low, high = row.range_for(family)
    inside = [high] if row.above or low is None else [low] if high is None else [low, high]
    if row.above:
        inside.append(5e-324)
    for value in (bound for bound in inside if bound is not None):
        assert SERVICES[name].read(bodies_with(name, row, value), family)[row.name] in (value, [value])
    outside = beyond(row, high, 1) if high is not None else []
    outside += beyond(row, low, -1) if low is not None else []
    outside += [low] if row.above and low is not None else []
    outside += [low + 1] if row.step and low is not None else []
    outside += [] if row.name == "lora_strength" else [True, "many", math.nan]
    for value in outside:
        (line,) = refused(name, bodies_with(name, row, value), family)
        assert line.startswith(f"{row.name}: found ")
        assert f"; expected {row.expected(family)}" in line
        assert line.endswith("--family which other family the model is of") == (family in row.by_family.within)


@services
def test_choices_are_as_documented_and_only_numbers_are_taken_to_the_nearest(name: str) -> None:
    for parameter, choices in DOCUMENTS[name]["choices"].items():
        row = SERVICES[name].table()[parameter]
        assert set(choices) <= set(row.choices), parameter
        for choice in row.choices:
            beside: dict[str, Any] = {"alchemy": False} if choice == "LEONARDO" else {}
            beside |= {"photoReal": True} if choice in PHOTO_WORDS else {}
            request = SERVICES[name].read(smallest(name) | beside | {parameter: choice})
            assert request[parameter] == choice
        numeric = isinstance(choices[0], int | float)
        # ModelsLab takes an empty text for a value that is left out.
        empty = [] if name.startswith("modelslab") else [""]
        beyond = ["many", math.inf, True, [choices[0]]] if numeric else [choices[0] + "x", 1, True]
        for wrong in empty + beyond:
            (line,) = refused(name, smallest(name) | {parameter: wrong})
            assert line.startswith(f"{parameter}: found ")
            open_text = row.known and isinstance(wrong, str)
            assert line.endswith(f"; expected {f'one of {listed(choices)}' if open_text else row.expected()}")


def nearest_cases() -> list[tuple[str, Parameter]]:
    """Every list of numbers that a document prints."""
    return [(name, row) for name in DOCUMENTS for row in SERVICES[name].table().values() if row.nearest]


@pytest.mark.parametrize(("name", "row"), nearest_cases(), ids=lambda case: getattr(case, "name", case))
def test_numbers_between_those_of_a_list_are_taken_to_the_nearest(name: str, row: Parameter) -> None:
    low, high = min(row.choices), max(row.choices)
    whole = row.type is int
    between = [low + (high - low) * part / 16 for part in range(-8, 25)] + [10**400 if whole else 1e300]
    for value in [round(each) if whole else each for each in between]:
        for written in (value, str(value)) if value < 10**300 else (value,):
            request = SERVICES[name].read(smallest(name) | {row.name: written})
            taken = request[row.name]
            assert taken in row.choices
            assert all(abs(taken - value) <= abs(each - value) for each in row.choices)
            assert bool(request.beside_list(row.name)) == (value not in row.choices)
            assert f"the nearest is taken, {taken}" in (
                request.beside_list(row.name) or f"the nearest is taken, {taken}"
            )


@services
def test_defaults_of_families_are_as_documented(name: str) -> None:
    for parameter, defaults in DOCUMENTS[name]["family_defaults"].items():
        for family, default in defaults.items():
            assert SERVICES[name].read(smallest(name), family)[parameter] == default


@services
def test_null_stands_for_a_parameter_left_out(name: str) -> None:
    nulls = dict.fromkeys(SERVICES[name].table()) | smallest(name)
    for parameter in SERVICES[name].table():
        assert SERVICES[name].read(nulls)[parameter] == SERVICES[name].read(smallest(name))[parameter]


def test_sizes_of_scenario_differ_by_family() -> None:
    request = smallest("scenario-texture")
    refused("scenario-texture", request | {"width": 504}, "sdxl")
    refused("scenario-texture", request | {"height": 1032}, "sd15")
    refused("scenario-texture", request | {"width": 516})
    SERVICES["scenario-texture"].read(request | {"width": 64, "height": 1024}, "sd15")


@pytest.mark.parametrize("strength", [{}, {"negativePromptStrength": 0}])
def test_negative_prompt_on_flux_needs_a_strength(strength: dict[str, float]) -> None:
    request = smallest("scenario-texture") | {"negativePrompt": "blur"} | strength
    (line,) = refused("scenario-texture", request, "flux-dev")
    found = "found 0" if strength else "missing"
    assert line.startswith(f"negativePromptStrength: {found} beside negativePrompt")
    SERVICES["scenario-texture"].read(request, "sdxl")
    SERVICES["scenario-texture"].read(request | {"negativePromptStrength": 0.1}, "flux-dev")


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("scenario-ip-adapter", {"ipAdapterImageId": "a", "ipAdapterImage": "b"}, "ipAdapterImageId"),
        ("modelslab", {"num_inference_steps": 30.5}, "21, 31, 41"),
        ("modelslab", {"mask_image": "a"}, "init_image"),
        ("modelslab", {"lora_model": "a,b,c", "lora_strength": "0.5,1"}, "2 numbers for 3"),
        ("octoai", {"mask_image": "a"}, "init_image"),
        ("scenario-img2img-texture", {"image": None}, "image: missing"),
        ("scenario-img2img-texture", {"numSamples": 65}, "at most 64"),
        ("scenario-controlnet-texture", {"controlImage": None}, "controlImage: missing"),
        ("scenario-controlnet-texture", {"modality": "canny:0"}, "above 0"),
        ("scenario-controlnet-texture", {"modality": "canny:1.5"}, "up to 1"),
        ("scenario-controlnet-texture", {"modality": "edges"}, '"canny", "pose"'),
        ("scenario-controlnet-texture", {"modality": "canny,pose,depth,seg"}, "at most 3"),
        ("scenario-controlnet-texture", {"modality": "city,pose"}, "at most 1"),
        ("scenario-controlnet-texture", {"modality": "canny,pose", "modelId": "flux"}, "at most 1"),
        ("leonardo", {"num_images": 5}, "1 to 4"),
        ("leonardo", {"alchemy": True, "ultra": True}, "ultra"),
        ("leonardo", {"alchemy": False, "presetStyle": "ANIME"}, "LEONARDO or NONE"),
        ("leonardo", {"photoReal": True, "alchemy": False}, "alchemy"),
        ("leonardo", {"photoReal": True, "photoRealVersion": "v1", "modelId": "a"}, "modelId"),
        ("leonardo", {"unzoom": True}, "unzoomAmount"),
        ("leonardo", {"contrast": "high"}, "1.0, 1.3, 1.8"),
    ],
)
def test_what_documents_forbid_is_refused(name: str, values: dict[str, Any], said: str) -> None:
    (line,) = refused(name, smallest(name) | values, family_of(values.get("modelId")))
    assert said in line


def test_octoai_takes_the_listed_sizes_only() -> None:
    request = smallest("octoai")
    assert SERVICES["octoai"].read(request, "sdxl")["width"] == 1024
    assert SERVICES["octoai"].read(request, "sd15")["height"] == 512
    SERVICES["octoai"].read(request | {"width": 640, "height": 1536}, "sdxl")
    (line,) = refused("octoai", request | {"width": 512, "height": 512}, "sdxl")
    assert "1536x640" in line
    assert "for SDXL" in line
    assert "--family" in line


def test_seed_of_leonardo_is_bounded_by_family() -> None:
    request = smallest("leonardo") | {"seed": 9999999998}
    SERVICES["leonardo"].read(request)
    assert "2147483637" in refused("leonardo", request, "flux-dev")[0]


def test_several_wrong_values_are_a_line_each() -> None:
    lines = refused("octoai", {"steps": 0, "cfg_scale": float("nan"), "seed": [1, 0], "loras": 3})
    assert [line.partition(":")[0] for line in lines] == ["prompt", "cfg_scale", "loras", "seed", "steps"]


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (("flux.1.1-pro-ultra",), "flux-pro"),
        (("flux.1-dev",), "flux-dev"),
        (("texture-flux",), "flux-dev"),
        (("flux.1-schnell",), "flux-schnell"),
        (("stable-diffusion-xl-base-1.0",), "sdxl"),
        (("v1-5-pruned.safetensors",), "sd15"),
        (("texture-sd",), "sd15"),
        (("model_abc", None), None),
        (("PHOENIX",), "phoenix"),
        (("b2614463-296c-462a-9586-aafdb8f00e36",), "flux-dev"),
        (("AA77F04E-3EEC-4034-9C07-D0F619684628",), "sdxl"),
        (("00000000-3eec-4034-9c07-d0f619684628",), None),
        (("model_abc", "sdxl"), "sdxl"),
    ],
)
def test_family_is_told_by_the_name(names: tuple[str | None, ...], family: str | None) -> None:
    assert family_of(*names) == family


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@services
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_object_is_taken_or_refused_in_lines(name: str, data: st.DataObject) -> None:
    names = st.sampled_from(DOCUMENTS[name]["names"]) | st.text(max_size=8)
    document = data.draw(st.dictionaries(names, JSON, max_size=6)) | data.draw(st.just(smallest(name)) | st.just({}))
    try:
        SERVICES[name].read(document, data.draw(st.sampled_from([None, *FAMILIES])))
    except GraphError as error:
        assert error.lines
        assert all("\n" not in line for line in error.lines)


def test_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", "--markdown"]) == 0
    page = capsys.readouterr().out
    assert page == (ROOT / "app" / "services" / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{row.name}` |" in page for service in SERVICES.values() for row in service.table().values())


def test_params_prints_one_service_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", "modelslab"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(SERVICES["modelslab"].table())
    assert main(["params", "modelslab", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in printed["modelslab"]] == list(SERVICES["modelslab"].table())
    assert main(["params", "modelab"]) == 2
    assert capsys.readouterr().err == '"modelab": no such service; did you mean "modelslab"?\n'


def test_text_lists_every_service() -> None:
    assert all(service.title in pages.text(list(SERVICES.values())) for service in SERVICES.values())


def test_params_prints_the_schema_of_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", "leonardo", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)["leonardo"]
    assert list(schema["properties"]) == list(SERVICES["leonardo"].table())
    assert schema["required"] == ["prompt"]
    steps, trio = (schema["properties"][name] for name in ("num_inference_steps", "controlNet"))
    assert (steps["minimum"], steps["maximum"], steps["default"]) == (10, 60, 15)
    assert trio["deprecated"] is True


def test_missing_pydantic_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [each for each in sys.modules if each.startswith("tessera.app.services")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    for command in (["params"], ["import", "octoai", "r.json", "-o", str(tmp_path / "w.json")]):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("pydantic is not installed")
        assert "pip install" in line
