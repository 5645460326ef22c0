"""What the cut to the result's proportions leaves of images and masks is known before the run."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import naming
from PIL import Image
from tessera.app.cli.main import main
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.bodies.parameters import MAPPED, NO_EFFECT
from tessera.app.services.convert import Line, convert
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.nodes.image import ImageScale
from tessera.host.schema.object_info import ObjectInfo

INFO = ObjectInfo(node_classes())
OCTOAI = {"prompt": "moss", "checkpoint": "texture-sd", "width": 448, "height": 576, "steps": 1, "seed": 3}
MODELSLAB = {"prompt": "moss", "model_id": "texture-sd", "width": 64, "height": 32, "seed": 4, "enhance_prompt": "no"}


def encoded(pixels: Any, kind: str = "PNG", **options: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode()


def mask(width: int, height: int, white: tuple[slice, slice]) -> str:
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[white] = 255
    return encoded(pixels)


IMAGE = encoded(np.full((64, 64, 3), 120))
LARGE = encoded(np.full((256, 256, 3), 120))
# Of a square, 448 x 576 px show the middle columns and 64 x 32 px the middle rows.
SIDES = mask(64, 64, (slice(None), slice(0, 6)))
MIDDLE = mask(64, 64, (slice(None), slice(30, 34)))
TOP = mask(64, 64, (slice(0, 15), slice(None)))


def imported(service: str, **body: Any) -> tuple[dict[str, Line], dict[str, Any]]:
    drawing, lines = convert(SERVICES[service], body, INFO, RequestImages({}), 1)
    return {line.name: line for line in lines}, {node["title"]: node for node in drawing["nodes"]}


def test_an_image_prompt_whose_mask_is_cut_to_black_is_left_out() -> None:
    shown, nodes = imported("octoai", **OCTOAI, ip_adapter_image=IMAGE, ip_adapter_mask_image=MIDDLE)
    assert "Image prompt 1" in nodes
    assert shown["ip_adapter_image"].outcome == MAPPED
    said, nodes = imported("octoai", **OCTOAI, ip_adapter_image=IMAGE, ip_adapter_mask_image=SIDES)
    assert "Image prompts" not in nodes
    assert said["ip_adapter_image"].outcome == said["ip_adapter_scale"].outcome == NO_EFFECT
    assert "its mask acts nowhere, it is black where the result of 448 x 576 px" in said["ip_adapter_image"].text
    assert "so the image acts nowhere" in said["ip_adapter_mask_image"].text
    samples = {"moss": [IMAGE]}
    said, nodes = imported(
        "octoai", **OCTOAI, ip_adapter_image=IMAGE, ip_adapter_mask_image=SIDES, transfer_images=samples
    )
    assert [title for title in ("Image prompt 1", "Image prompt 2") if title in nodes] == ["Image prompt 1"]
    assert said["ip_adapter_image"].outcome == NO_EFFECT


@pytest.mark.parametrize(
    ("service", "body"),
    [
        ("modelslab", {**MODELSLAB, "init_image": IMAGE, "mask_image": TOP}),
        ("octoai", {**OCTOAI, "init_image": IMAGE, "mask_image": SIDES, "outpainting": True}),
    ],
)
def test_a_mask_that_is_cut_to_black_is_told_to_paint_nothing(service: str, body: dict[str, Any]) -> None:
    assert "so nothing is painted" in imported(service, **body)[0]["mask_image"].text
    assert "nothing is painted" not in imported(service, **body | {"mask_image": MIDDLE})[0]["mask_image"].text


@pytest.mark.parametrize("name", ["init_image", "mask_image"])
def test_an_image_of_which_nothing_is_left_is_refused(name: str) -> None:
    body = MODELSLAB | {"width": 16, "height": 1024, **dict.fromkeys(("init_image", "mask_image"), LARGE)}
    imported("modelslab", **body)
    with pytest.raises(GraphError, match=naming(name, 8, 24, "nothing is left", 16, 1024)):
        imported("modelslab", **body | {name: encoded(np.zeros((24, 8, 3)))})


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 128), st.integers(2, 128))
def test_every_image_that_is_taken_can_be_cut(width: int, height: int, wide: int, high: int) -> None:
    image = np.full((height, width, 3), 100)
    try:
        imported("modelslab", **MODELSLAB | {"width": wide * 8, "height": high * 8, "init_image": encoded(image)})
    except GraphError as error:
        assert "nothing is left" in error.lines[0]
        return
    for method in ("bilinear", "lanczos"):
        pixels = torch.from_numpy(image / 255.0).float()[None]
        (cut,) = ImageScale.execute(pixels, method, wide * 8, high * 8, "center").result
        assert torch.allclose(cut, pixels[:, :1, :1], atol=1e-3)


@pytest.mark.parametrize("kind", ["MPO", "WEBP", "PNG"])
def test_of_an_image_with_frames_the_first_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (32, 16), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    found = RequestImages({})
    name = found("init_image", base64.b64encode(file.getvalue()).decode())
    with Image.open(io.BytesIO(found.found[name])) as image:
        assert getattr(image, "n_frames", 1) == 1
        red = image.convert("RGB").getpixel((5, 5))
    assert isinstance(red, tuple)
    assert red[0] > 200 > 50 > red[2]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = folder_paths.models_dir, folder_paths.get_input_directory(), folder_paths.get_output_directory()
    yield tmp_path
    folder_paths.configure(*before)


def test_what_is_cut_to_black_runs(folder: Path) -> None:
    body = OCTOAI | {"ip_adapter_image": IMAGE, "ip_adapter_mask_image": SIDES}
    (folder / "r.json").write_text(json.dumps(body))
    folders = ["--models-dir", str(folder), "--input-dir", str(folder / "input")]
    assert main(["import", "octoai", str(folder / "r.json"), "-o", str(folder / "w.json"), *folders]) == 0
    assert main(["run", str(folder / "w.json"), "--device", "cpu", "--output-dir", str(folder), *folders]) == 0
