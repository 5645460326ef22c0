"""Scenario's texture upscale: the texture enlarged around its edges, then sampled again."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from importing import SEED, imported, nodes_in, of_class, outcomes, sampler, with_files
from naming import naming
from PIL import Image
from tessera.app import api
from tessera.app.services.bodies.parameters import APPROXIMATED, MAPPED, NO_EFFECT, NOT_YET
from tessera.app.services.drawing import upscaling
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.schema.object_info import ObjectInfo

SERVICE = "scenario-texture-upscale"


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectInfo]:
    yield from nodes_in(tmp_path_factory.mktemp("importer"))


def waves(width: int, height: int) -> str:
    """A texture that repeats, as base64."""
    y, x = (2 * np.pi * np.arange(side) / side for side in (height, width))
    red, green = np.broadcast_arrays(128 + 100 * np.sin(x)[None], 128 + 100 * np.cos(y)[:, None])
    file = io.BytesIO()
    Image.fromarray(np.stack([red, green, red], -1).astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def title(drawing: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [node for node in drawing["nodes"] if node["title"] == name]
    return found


@pytest.mark.parametrize(
    ("texture", "factor", "size"),
    [
        ((48, 32), 2, (96, 64)),
        ((48, 32), 8, (384, 256)),
        ((64, 64), 2.5, (160, 160)),
        ((100, 100), 4, (400, 400)),
        # In tokens of 16 px, and in one scale for both sides.
        ((48, 32), 2.3, (96, 64)),
        ((48, 24), 2.5, (128, 64)),
        # Resized first.
        ((50, 30), 2, (96, 64)),
    ],
)
def test_the_texture_tells_the_size(
    texture: tuple[int, int], factor: float, size: tuple[int, int], info: ObjectInfo
) -> None:
    drawing, lines, prompt = imported(SERVICE, {"image": waves(*texture), "upscaleFactor": factor}, info)
    enlarged = prompt[str(title(drawing, "Enlarge")["id"])]["inputs"]
    around = of_class(prompt, "TesseraWrapPad")["padding"]
    source = (48, 32) if texture == (50, 30) else texture
    for side, whole, name in zip(source, size, ("width", "height"), strict=True):
        # A whole number of px for the texture and for its margin.
        assert enlarged[name] * side == whole * (side + 2 * around)
    said = outcomes(lines)
    assert said["upscaleFactor"] == APPROXIMATED
    assert said["image"] == MAPPED


def test_a_model_enlarges_where_there_is_one(info: ObjectInfo) -> None:
    changed: Any = with_files(info, UpscaleModelLoader=["twice.pth"])
    _, lines, prompt = imported(SERVICE, {"image": waves(48, 32)}, changed)
    assert of_class(prompt, "ImageUpscaleWithModel")
    assert outcomes(lines)["upscaleFactor"] == MAPPED


def test_the_tile_network_follows_the_texture_in_the_size_of_the_result(info: ObjectInfo) -> None:
    body = {"image": waves(48, 32), "controlnetConditioningScale": 0.7}
    files: Any = with_files(info, ControlNetLoader=["flux_tile.safetensors"])
    drawing, lines, prompt = imported(SERVICE, body, files)
    assert of_class(prompt, "ControlNetApplyAdvanced")["strength"] == 0.7
    control = prompt[str(title(drawing, "Size of control image")["id"])]["inputs"]
    assert (control["width"], control["height"]) == (96, 64)
    assert outcomes(lines)["controlnetConditioningScale"] == APPROXIMATED
    assert outcomes(imported(SERVICE, body, info)[1])["controlnetConditioningScale"] == NOT_YET


def test_strength_is_the_part_of_the_noise_levels_that_is_run(info: ObjectInfo) -> None:
    body = {"image": waves(48, 32), "strength": 0.25, "numInferenceSteps": 40, "seed": 9}
    sampled = sampler(imported(SERVICE, body, info)[2])
    assert [sampled[name] for name in ("denoise", "steps", "seed")] == [0.25, 10, 9]
    assert sampler(imported(SERVICE, {"image": waves(48, 32)}, info)[2])["seed"] == SEED


def test_loras_have_their_scales(info: ObjectInfo) -> None:
    files: Any = with_files(info, LoraLoader=["a.safetensors", "b.safetensors"])
    body = {"image": waves(48, 32), "loras": ["a", "b"], "lorasScale": [0.5]}
    prompt = imported(SERVICE, body, files)[2]
    loaded = [node["inputs"] for node in prompt.values() if node["class_type"] == "LoraLoader"]
    assert [(each["lora_name"][0], each["strength_model"]) for each in loaded] == [("a", 0.5), ("b", 1.0)]
    with pytest.raises(GraphError, match=naming("lorasScale", 21, -20, 20)):
        imported(SERVICE, body | {"lorasScale": [21]}, files)


def test_what_a_preset_sets_is_not_public(info: ObjectInfo) -> None:
    body = {"image": waves(48, 32), "preset": "creative", "detailsEnable": True}
    said = outcomes(imported(SERVICE, body, info)[1])
    assert said["preset"] == said["detailsEnable"] == NO_EFFECT
    with pytest.raises(GraphError, match="preset: without effect here"):
        imported(SERVICE, body, info, strict=True)


@pytest.mark.parametrize(("name", "most"), [("MAX_SIDE", 95), ("MAX_PIXELS", 96 * 64 - 1)])
def test_a_result_that_no_node_makes_is_refused(
    name: str, most: int, info: ObjectInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscaling, name, most)
    with pytest.raises(GraphError, match=naming("image", 48, 32, 96, 64, most)):
        imported(SERVICE, {"image": waves(48, 32)}, info)


@pytest.mark.usefixtures("info")
@pytest.mark.parametrize("model", ["texture-flux", "texture-sd"])
def test_what_is_upscaled_still_repeats(model: str, info: ObjectInfo, tmp_path: Path) -> None:
    body = {"image": waves(48, 32), "upscaleFactor": 2, "strength": 0.4, "numInferenceSteps": 8, "seed": 1}
    drawing, _, _ = imported(SERVICE, body, info, model=model)
    folders = {"models_dir": folder_paths.models_dir, "input_dir": folder_paths.get_input_directory()}
    results = api.run(json.loads(json.dumps(drawing)), **folders, output_dir=tmp_path, device="cpu")
    (path,) = results.paths
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=float)
    assert pixels.shape == (64, 96, 3)
    for axis in (0, 1):
        steps = np.abs(pixels - np.roll(pixels, 1, axis)).mean(axis=(1 - axis, 2))
        assert steps[0] <= steps[1:].max() * 1.05 + 1
