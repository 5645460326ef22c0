"""Random request bodies from their import to their images: what the import takes does not fail in the run.

`pytest -m requests` draws 20 of each service; TESSERA_BODIES=200 draws 1,000 in all. OctoAI's bodies have smaller sizes
than its document lists, so that they are quick.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from random_bodies import GUIDANCES, NAMED, NESTED, STYLE_IDS, Values
from request_bodies import write_files
from safetensors.torch import load_file, save_file
from tessera.app import api
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.convert import convert
from tessera.app.services.hosted import octoai
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError, NodeError
from tessera.host.schema.object_info import ObjectInfo

BODIES = int(os.environ.get("TESSERA_BODIES", "20"))
SIZES = (64, 72, 96, 120, 128)
MODELS = ["texture-sd", "texture-sd", "texture-flux", "tiny-sdxl"]
FEW = {
    "quantity": 2,
    "num_images": 2,
    "numSamples": 2,
    "samples": 2,
    "steps": 3,
    "numInferenceSteps": 3,
    "num_inference_steps": 10,
}
VALUES = Values(
    texts={
        **dict.fromkeys(["modelId", "model_id", "checkpoint", "model"], MODELS),
        "baseModelId": ["texture-flux"],
        **dict.fromkeys(["prompt", "negative_prompt", "negativePrompt", "prompt_2"], ["moss", "white zigzag", ""]),
        "enhancePromptInstructions": ["more moss"],
        "lora_model": ["zigzag", "gone", "zigzag, moss"],
        "vae": ["texture-vae", "gone"],
        "controlnet": ["canny", "openpose", "gone"],
        "aspectRatio": ["1:1", "16:9"],
        "modelEpoch": ["3", "6"],
        **dict.fromkeys(["controlnet_model", "controlnet_type"], ["canny", "canny,openpose", "gone"]),
        "modality": ["canny", "depth:0.5,pose:1.0", "canny:0.3", "landscape"],
        "sd_version": ["v1_5", "v2", "PHOENIX"],
        "loras": ["zigzag", "moss", "gone"],
        "style_ids": STYLE_IDS,
    },
    objects={
        **dict.fromkeys(NAMED, GUIDANCES),
        **NESTED,
        "userElements": [{"userLoraId": "5", "weight": 1}],
    },
    loras=["zigzag", "moss", "gone"],
    sizes=SIZES,
    most={**FEW, "count": 2, "unzoomAmount": 1.0, "upscaleRatio": 2.0, "upscaleFactor": 3.0, "weighting": 2.0},
)


LORAS_OF_BOTH = ("zigzag", "moss", "5")
# Parameters that name files which are there for texture-sd alone.
FOR_ONE = ("controlnet", "vae", "modality")
LORAS = ("concepts", "elements", "userElements", "lora_model", "loras")


def fitting(sent: dict[str, Any]) -> dict[str, Any]:
    """A body without the files that do not fit its model: that would be an error of the files."""
    named = {str(sent.get(key)) for key in ("modelId", "model_id", "checkpoint", "baseModelId", "model")}
    idle = (FOR_ONE if named & {"texture-flux", "tiny-sdxl"} else ()) + (LORAS if "tiny-sdxl" in named else ())
    return {key: each for key, each in sent.items() if not key.lower().startswith(idle) and key not in idle}


def small(draw: random.Random, name: str) -> dict[str, Any]:
    """What keeps an image small where a body leaves it out, whose defaults take minutes."""
    table = SERVICES[name].table()
    sides = {key: draw.choice(SIZES) for key in ("width", "height") if key in table}
    return sides | {key: most for key, most in FEW.items() if key in table}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with small models under the names that the bodies have."""
    folder = tmp_path_factory.mktemp("bodies")
    write_files(folder)
    for name in LORAS_OF_BOTH:
        # One file for both demo models.
        both = [load_file(folder / "models" / "loras" / f"{each}.safetensors") for each in (name, "flux-detail")]
        save_file(both[0] | both[1], folder / "models" / "loras" / f"{name}.safetensors")
    before = folder_paths.models_dir, folder_paths.get_input_directory(), folder_paths.get_output_directory()
    folder_paths.configure(str(folder / "models"), str(folder / "input"), str(folder / "output"))
    (folder / "input").mkdir()
    yield folder
    folder_paths.configure(*before)


def drawn(name: str, sent: dict[str, Any], info: ObjectInfo, files: Path) -> list[Path]:
    """The images of a body.

    Raises:
        GraphError: the service would refuse it.
    """
    images = RequestImages({})
    workflow, _ = convert(SERVICES[name], sent, info, images, 1)
    for file, content in images.found.items():
        (files / "input" / file).write_bytes(content)
    folders = {f"{key}_dir": files / key for key in ("models", "input", "output")}
    try:
        results = api.run(json.loads(json.dumps(workflow)), **folders, device="cpu")
    except (GraphError, NodeError) as error:
        raise AssertionError(f"{error}: {json.dumps(sent)}") from error
    shown = [each["path"] for output in results.outputs.values() for each in output.get("images", [])]
    return [Path(path) for path in shown]


@pytest.mark.requests
@pytest.mark.parametrize("name", SERVICES)
def test_what_is_imported_is_drawn(name: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(octoai, "octoai_sizes", lambda family: [(one, other) for one in SIZES for other in SIZES])
    draw, info = random.Random(name), ObjectInfo(node_classes())
    tried = done = 0
    while done < BODIES:
        tried += 1
        assert tried < 50 * BODIES, "nearly every body is refused"
        sent = small(draw, name) | fitting(VALUES.body(draw, name))
        try:
            paths = drawn(name, sent, info, files)
        except GraphError:
            continue
        done += 1
        assert paths
        for path in paths:
            with Image.open(path) as image:
                assert np.asarray(image).size
            path.unlink()
