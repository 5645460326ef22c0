"""Image Settings: refuses with reasons, snaps to the nearest allowed value, knows aspect ratios."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tessera.app.services.services import SERVICES
from tessera.images.service_limits import (
    ANY_SIDE,
    COUNTS,
    FAMILIES,
    GUIDANCE,
    LEONARDO_SIDE,
    RULES,
    SIDES,
    STEPS,
    Settings,
    explained,
    nearest,
    octoai_sizes,
    size_of_ratio,
)
from tessera.nodes.settings import TesseraSettings

DOCUMENTS = json.loads((Path(__file__).parent / "data" / "service_parameters.json").read_text(encoding="utf-8"))
# Of which service, and what it calls steps and count.
PLACES = {
    "Scenario": ("scenario-texture", "numInferenceSteps", "numSamples"),
    "OctoAI": ("octoai", "steps", "num_images"),
    "Leonardo": ("leonardo", "num_inference_steps", "num_images"),
}
SETTINGS = st.builds(
    Settings,
    st.integers(8, 16384),
    st.integers(8, 16384),
    st.integers(1, 1000),
    st.floats(-1, 100),
    st.integers(1, 128),
)
GOOD: dict[str, Any] = {
    "family": "SDXL",
    "rules": "Scenario",
    "width": 1024,
    "height": 1024,
    "aspect_ratio": "",
    "steps": 30,
    "guidance": -1.0,
    "count": 4,
    "snap": False,
}


@given(SETTINGS, st.sampled_from(FAMILIES), st.sampled_from(RULES))
def test_the_nearest_settings_are_allowed_and_stay(asked: Settings, family: str, rules: str) -> None:
    made = nearest(asked, family, rules)
    assert explained(made, family, rules) == []
    assert nearest(made, family, rules) == made
    assert made.guidance >= 0
    # What is said to be wrong is what was changed.
    changed = (asked.width, asked.height) != (made.width, made.height)
    changed |= asked.steps != made.steps or asked.count != made.count or 0 <= asked.guidance != made.guidance
    assert bool(explained(asked, family, rules)) == changed


@given(st.integers(1, 16), st.integers(1, 16), st.integers(256 * 256, 2048 * 2048))
def test_an_aspect_ratio_keeps_the_area(wide: int, high: int, area: int) -> None:
    width, height = size_of_ratio(f"{wide}:{high}", area)
    assert width % 8 == height % 8 == 0
    assert math.isclose(width * height, area, rel_tol=8 / width + 8 / height)
    assert math.isclose(width / height, wide / high, rel_tol=8 / width + 8 / height)


@pytest.mark.parametrize("ratio", ["16x9", "0:1", "17:1", ":", "1:100000", "a:b"])
def test_wrong_ratios_are_refused(ratio: str) -> None:
    with pytest.raises(ValueError, match="aspect_ratio"):
        TesseraSettings.execute(**GOOD | {"aspect_ratio": ratio})


def test_all_reasons_are_said_at_once() -> None:
    wrong = GOOD | {"rules": "Leonardo", "family": "Flux pro", "width": 2000, "steps": 9, "guidance": 1.0, "count": 5}
    with pytest.raises(ValueError, match="snap") as caught:
        TesseraSettings.execute(**wrong)
    assert all(
        word in str(caught.value) for word in ("32 to 1536", "10 to 60", "2 to 5", "4 where a side is above 768")
    )
    result = TesseraSettings.execute(**wrong | {"snap": True}).result
    assert result is not None
    assert result[:5] == (1536, 1024, 10, 2.0, 4)
    assert len(result[5].splitlines()) == 4


@pytest.mark.parametrize(("family", "guidance"), [("SD 1.5", 7.5), ("SDXL", 6.0), ("Flux dev", 3.5), ("Flux pro", 3.0)])
def test_guidance_that_is_left_out_is_the_familys_own(family: str, guidance: float) -> None:
    assert TesseraSettings.execute(**GOOD | {"family": family}).result[3] == guidance


def test_octoai_takes_the_size_of_the_nearest_shape() -> None:
    snapped = TesseraSettings.execute(**GOOD | {"rules": "OctoAI", "aspect_ratio": "9:16", "snap": True}).result
    assert snapped[:2] == (768, 1344)
    assert len(octoai_sizes("SD 1.5")) == 25
    assert len(octoai_sizes("SDXL")) == 9


def test_limits_are_those_of_the_documents() -> None:
    keys = {"SD 1.5": "sd15", "SDXL": "sdxl", "Flux dev": "flux-dev", "Flux pro": "flux-pro"}
    scenario = DOCUMENTS["scenario-texture"]
    for family, (default, within) in GUIDANCE.items():
        assert scenario["family_ranges"]["guidance"][keys[family]] == list(within)
        assert scenario["family_defaults"]["guidance"][keys[family]] == default
        sides = list(SIDES.get(family, ANY_SIDE))
        for side in ("width", "height"):
            assert scenario["family_ranges"][side].get(keys[family], scenario["ranges"][side]) == sides
    leonardo = DOCUMENTS["leonardo"]["ranges"]
    assert leonardo["width"] == leonardo["height"] == list(LEONARDO_SIDE)
    assert {rules: DOCUMENTS[service]["ranges"][steps] for rules, (service, steps, _) in PLACES.items()} == {
        rules: list(within) for rules, within in STEPS.items()
    }
    # OctoAI's document gives no range of num_images; the request's own is the node's.
    assert SERVICES["octoai"].table()["num_images"].within == COUNTS["OctoAI"]
    counts = {rules: DOCUMENTS[service]["ranges"].get(count) for rules, (service, _, count) in PLACES.items()}
    assert counts == {"Scenario": list(COUNTS["Scenario"]), "OctoAI": None, "Leonardo": list(COUNTS["Leonardo"])}
