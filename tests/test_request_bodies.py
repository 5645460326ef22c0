"""Request bodies of every service, from their JSON to their images, through the command line as a user has it.

Here all of them become valid workflows and a few are drawn; `pytest -m requests` draws them all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from request_bodies import Entry, entries, write_files
from tessera.app.cli.main import main
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths

ENTRIES = entries()
EACH = [pytest.param(entry, id=entry.id) for entry in ENTRIES]
# Names of the bodies that are drawn in every run of the tests.
DRAWN = {
    "scenario-texture": ["least values", "guidance below one", "concepts", "flux negative", "intermediate images"],
    "scenario-ip-adapter": ["two images, scales at both ends", "deprecated id"],
    "scenario-img2img-texture": ["least values"],
    "scenario-controlnet-texture": ["edges are found"],
    "scenario-texture-converter": ["inverted"],
    "modelslab": ["least values", "inpainting"],
    "modelslab-community": ["panorama and upscale"],
    "modelslab-controlnet": ["control image"],
    "octoai": ["least values", "image prompt"],
    "scenario-texture-upscale": ["least values", "a factor between"],
    "leonardo-v2": ["least values", "styles of two images"],
    "leonardo": ["least values", "canvas", "unzoom and upscale", "transparency", "prompt written by a model"],
}
FEWEST = 12
# Services whose results are as large as an image that is sent, or a multiple of it.
OF_THEIR_IMAGE = ["scenario-texture-converter", "scenario-texture-upscale"]
# Of those that are sampled in tokens of 16 px, or in units of 32 px by texture-sd.
IN_TOKENS = {"stable diffusion": (128, 64), "every parameter": (128, 64), "a factor between": (160, 80)}
# What an omitted size or count gets, in the order width, height, images.
OMITTED = {
    "scenario-texture": (512, 512, 4),
    "scenario-ip-adapter": (512, 512, 4),
    "scenario-img2img-texture": (512, 512, 4),
    "scenario-controlnet-texture": (512, 512, 4),
    **dict.fromkeys(OF_THEIR_IMAGE, (48, 24, 1)),
    **dict.fromkeys(["modelslab", "modelslab-community", "modelslab-controlnet"], (512, 512, 1)),
    "octoai": (1024, 1024, 1),
    "leonardo": (1024, 768, 4),
    "leonardo-v2": (1024, 1024, 4),
}
# What a service does not work without beside what it requires.
BESIDE = {"scenario-img2img-texture": {"image"}, "scenario-controlnet-texture": {"controlImage"}}
# Of the images in the bodies, in px.
DATA_SIDE = 16
COUNTS = ("numSamples", "samples", "num_images", "quantity")
RATIOS = {"16:9": (1360, 768)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the models and the image that the bodies name."""
    folder = tmp_path_factory.mktemp("requests")
    write_files(folder)
    before = folder_paths.models_dir, folder_paths.get_input_directory(), folder_paths.get_output_directory()
    yield folder
    folder_paths.configure(*before)


def imported(entry: Entry, files: Path, folder: Path, *options: str) -> int:
    """Run `tessera import`; the workflow is folder/workflow.json."""
    request = folder / "request.json"
    request.write_text(json.dumps(entry.body), encoding="utf-8")
    own = [each.replace("=image.png", f"={files / 'image.png'}") for each in entry.options]
    command = ["import", entry.service, str(request), "-o", str(folder / "workflow.json"), *own, *options]
    return main([*command, *folders(files)])


def folders(files: Path) -> list[str]:
    return ["--models-dir", str(files / "models"), "--input-dir", str(files / "input")]


def expected(entry: Entry) -> tuple[int, tuple[int, int]]:
    """How many images a body asks for, and their size."""
    body = entry.parameters
    width, height, count = OMITTED[entry.service]
    count = next((int(body[name]) for name in COUNTS if body.get(name) is not None), count)
    if isinstance(body.get("seed"), list):
        count = len(body["seed"])
    if entry.service in OF_THEIR_IMAGE and str(body.get("texture", body.get("image"))).startswith("data:"):
        width = height = DATA_SIDE
    size = [int(body.get("width") or width) // 8 * 8, int(body.get("height") or height) // 8 * 8]
    if "ultra" in str(body.get("modelId")) and not {"width", "height"} & body.keys():
        size = list(RATIOS[body["aspectRatio"]])
    if entry.service == "scenario-texture-upscale":
        scale = float(body.get("upscaleFactor", 2))
        return count, IN_TOKENS.get(entry.name, (round(width * scale), round(height * scale)))
    twice = body.get("highResolution") or body.get("upscale") == "yes"
    factor = body.get("upscaleRatio", 1) * (2 if twice else 1)
    return count, (round(size[0] * factor), round(size[1] * factor))


def draw(entry: Entry, files: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[Path]:
    """Import a body and run its workflow; the images."""
    assert imported(entry, files, folder) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert {line.partition(":")[0] for line in said.splitlines()} >= {
        name for name, value in entry.parameters.items() if value is not None
    }
    command = ["run", str(folder / "workflow.json"), "--json", "--device", "cpu", *folders(files)]
    assert main([*command, "--output-dir", str(folder / "out")]) == 0, capsys.readouterr().err
    outputs = json.loads(capsys.readouterr().out)["outputs"]
    nodes = json.loads((folder / "workflow.json").read_text(encoding="utf-8"))["nodes"]
    (saves,) = [str(node["id"]) for node in nodes if node["title"] == "Save"]
    return [Path(image["path"]) for image in outputs[saves]["images"]]


def check_images(entry: Entry, files: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Draw a body, and look at the images."""
    drawn = draw(entry, files, folder, capsys)
    count, size = expected(entry)
    assert len(drawn) == count
    for path in drawn:
        with Image.open(path) as image:
            assert image.size == size
            assert np.asarray(image.convert("RGB"), dtype=np.float64).std() > 1.0
    if keep := os.environ.get("TESSERA_KEEP_IMAGES"):
        for number, path in enumerate(drawn):
            path.rename(Path(keep) / f"{entry.id}.{number}{path.suffix}")


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_enough_bodies(service: str) -> None:
    bodies: list[dict[str, Any]] = [entry.parameters for entry in ENTRIES if entry.service == service]
    assert len(bodies) >= FEWEST
    required = {row.name for row in SERVICES[service].table().values() if row.required} | BESIDE.get(service, set())
    assert any(body.keys() == required for body in bodies), "none is minimal"
    everything = SERVICES[service].table().keys()
    # ipAdapterImage is refused beside ipAdapterImageId.
    assert any(everything - body.keys() <= {"ipAdapterImage"} for body in bodies), "none sets every parameter"


@pytest.mark.parametrize("entry", EACH)
def test_body_becomes_a_valid_workflow(
    entry: Entry, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(entry, files, tmp_path) == 0, capsys.readouterr().err
    assert main(["check", str(tmp_path / "workflow.json"), *folders(files)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("entry", [pytest.param(e, id=e.id) for e in ENTRIES if e.name in DRAWN[e.service]])
def test_body_is_drawn(entry: Entry, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_images(entry, files, tmp_path, capsys)


@pytest.mark.requests
@pytest.mark.parametrize("entry", [pytest.param(e, id=e.id) for e in ENTRIES if e.name not in DRAWN[e.service]])
def test_every_other_body_is_drawn(
    entry: Entry, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_images(entry, files, tmp_path, capsys)


TINY = {"prompt": "white and teal zigzag", "seed": 7}
SCENARIO = {**TINY, "modelId": "texture-sd", "width": 64, "height": 64, "numSamples": 1, "numInferenceSteps": 1}
FLUX = {**SCENARIO, "modelId": "my-style", "baseModelId": "texture-flux"}
MODELSLAB = {**TINY, "model_id": "texture-sd", "width": 32, "height": 32, "num_inference_steps": 21}
OCTOAI = {**TINY, "checkpoint": "texture-sd", "width": 448, "height": 576, "steps": 1}
# Of a service: a body, and what makes another image of it.
CHANGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("scenario-texture", SCENARIO, {"concepts": [{"modelId": "zigzag", "scale": 1}]}),
    ("scenario-texture", SCENARIO, {"negativePrompt": "teal"}),
    ("scenario-texture", FLUX, {"modelEpoch": "5"}),
    ("scenario-texture", FLUX, {"negativePrompt": "teal", "negativePromptStrength": 10}),
    ("modelslab", MODELSLAB, {"lora_model": "zigzag", "lora_strength": "1"}),
    ("modelslab", MODELSLAB, {"vae": "texture-vae"}),
    ("modelslab", MODELSLAB, {"clip_skip": 2}),
    ("modelslab", MODELSLAB, {"use_karras_sigmas": "no"}),
    ("modelslab", MODELSLAB, {"enhance_prompt": "no"}),
    ("octoai", OCTOAI, {"textual_inversions": {"zig": "zigzag"}}),
    ("octoai", OCTOAI, {"style_preset": "pixel-art"}),
]


@pytest.mark.requests
@pytest.mark.parametrize(("service", "body", "change"), CHANGES, ids=["-".join([c[0], *c[2]]) for c in CHANGES])
def test_parameter_changes_the_image(
    service: str,
    body: dict[str, Any],
    change: dict[str, Any],
    files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = []
    for name, sent in (("before", body), ("again", body), ("after", body | change)):
        (tmp_path / name).mkdir()
        (path,) = draw(Entry(service, name, sent, []), files, tmp_path / name, capsys)
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("RGB"), dtype=np.float64))
    assert np.array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).mean() > 0.1
