"""What a request gives no strength is not drawn, and its parameters are not said to act."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tessera.app.registry import object_info
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.bodies.parameters import MAPPED, NO_EFFECT
from tessera.app.services.convert import convert
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths


def encoded() -> str:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (120, 90, 60)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


IMAGE = encoded()
OCTOAI = {"prompt": "moss", "checkpoint": "texture-sd", "seed": 3}
SCENARIO = {"prompt": "moss", "modelId": "texture-sd"}
MODELSLAB = {"prompt": "moss", "model_id": "texture-sd", "seed": 4, "enhance_prompt": "yes", "clip_skip": 2}
CONTROL = {"controlnet": "canny", "controlnet_image": IMAGE}


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name in ("loras/moss", "loras/fern", "controlnet/canny"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.safetensors").touch()
    folder_paths.configure(str(tmp_path))


def imported(service: str, **body: Any) -> tuple[dict[str, str], set[str]]:
    drawing, lines = convert(SERVICES[service], body, object_info(), RequestImages({}), 1)
    return {line.name: line.outcome for line in lines}, {node["type"] for node in drawing["nodes"]}


@pytest.mark.parametrize(
    ("service", "off", "on", "idle", "kind"),
    [
        ("octoai", {"loras": {"moss": 0}}, {"loras": {"moss": 0.5}}, {"loras"}, "LoraLoader"),
        (
            "scenario-texture",
            {"concepts": [{"modelId": "moss", "scale": 0}]},
            {"concepts": [{"modelId": "moss"}]},
            {"concepts"},
            "LoraLoader",
        ),
        (
            "octoai",
            CONTROL | {"controlnet_conditioning_scale": 0},
            CONTROL,
            {"controlnet", "controlnet_image"},
            "ControlNetApplyAdvanced",
        ),
        (
            "octoai",
            CONTROL | {"controlnet_early_stop": 0},
            CONTROL,
            {"controlnet", "controlnet_image", "controlnet_conditioning_scale"},
            "ControlNetApplyAdvanced",
        ),
        (
            "octoai",
            {"ip_adapter_image": IMAGE, "ip_adapter_method": "style", "ip_adapter_scale": 0},
            {"ip_adapter_image": IMAGE, "ip_adapter_method": "style"},
            {"ip_adapter_image", "ip_adapter_method"},
            "TesseraApplyImagePrompts",
        ),
        (
            "scenario-ip-adapter",
            {"ipAdapterImages": [IMAGE], "ipAdapterScales": [0]},
            {"ipAdapterImages": [IMAGE], "ipAdapterScales": [0.5]},
            {"ipAdapterImages"},
            "TesseraApplyImagePrompts",
        ),
    ],
)
def test_what_has_no_strength_is_left_out(
    service: str, off: dict[str, Any], on: dict[str, Any], idle: set[str], kind: str
) -> None:
    base = OCTOAI if service == "octoai" else SCENARIO
    said, kinds = imported(service, **base, **off)
    assert {name for name in idle if said[name] != NO_EFFECT} == set()
    assert kind not in kinds
    said, kinds = imported(service, **base, **on)
    assert {said[name] for name in idle} == {MAPPED}
    assert kind in kinds


def test_what_has_a_strength_stays_beside_it() -> None:
    said, kinds = imported("octoai", **OCTOAI, loras={"moss": 0, "fern": 1})
    assert said["loras"] == MAPPED
    assert "LoraLoader" in kinds


def test_an_image_that_is_kept_whole_is_not_sampled() -> None:
    first = {"init_image": IMAGE, "mask_image": IMAGE, "lora_model": "moss", "width": 64, "height": 64}
    said, kinds = imported("modelslab", **MODELSLAB, **first, strength=0)
    painted = {"prompt", "mask_image", "seed", "num_inference_steps", "enhance_prompt", "clip_skip", "lora_model"}
    assert {said.get(name, NO_EFFECT) for name in painted} == {NO_EFFECT}
    assert {said[name] for name in ("init_image", "strength", "width")} == {MAPPED}
    assert not {"KSampler", "TesseraSchedulerKSampler", "LoadImageMask"} & kinds
    said, kinds = imported("modelslab", **MODELSLAB, **first, strength=0.5)
    assert said["prompt"] == said["mask_image"] == said["seed"] == MAPPED
    assert "KSampler" in kinds


def test_a_list_of_seeds_says_how_many_images_there_are() -> None:
    said, _ = imported("octoai", **OCTOAI | {"seed": [1, 2]}, num_images=3)
    assert said["num_images"] == NO_EFFECT
