"""Text encoders and VAEs of the families: ComfyUI's own classes with small random weights against the host's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from comfyui.server import python_of
from tessera.host.models.loaders import load_clip, load_vae
from tessera.host.models.lora import clip_targets

if "COMFYUI_PATH" not in os.environ:
    pytest.skip("no COMFYUI_PATH: set it to a ComfyUI checkout to compare encoders", allow_module_level=True)

pytestmark = pytest.mark.comfyui

TEXT = 1e-4
IMAGE = 1 / 255
FILES = {
    "sd2": ("stable_diffusion", ["clip_h"]),
    "refiner": ("stable_diffusion", ["clip_g"]),
    "sd3": ("sd3", ["sd3_l", "sd3_g", "sd3_t5"]),
    "chroma": ("chroma", ["chroma_t5"]),
    "z-image": ("lumina2", ["z_qwen"]),
    "klein": ("flux2", ["klein_qwen"]),
    "flux2-dev": ("flux2", ["mistral"]),
    "qwen-image": ("qwen_image", ["qwen25"]),
    "qwen-image-edit": ("qwen_image", ["qwen25_edit"]),
    "qwen-image-two": ("qwen_image", ["qwen25_two"]),
}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    folder = tmp_path_factory.mktemp("encoders")
    tiny.save_t5_tokenizer(folder)
    script = Path(__file__).parent / "run_encoders.py"
    command = [python_of(checkout), str(script), str(checkout), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout)
    assert done.returncode == 0, done.stderr[-4000:]
    yield folder, torch.load(folder / "encoders.pt", weights_only=False)


@pytest.mark.parametrize("name", FILES)
def test_text_embeddings(name: str, encoders: tuple[Path, dict[str, Any]]) -> None:
    folder, found = encoders
    case = found[name]
    assert not isinstance(case, str), f"ComfyUI failed: {case}"
    kind, files = FILES[name]
    clip = load_clip([folder / f"{file}.safetensors" for file in files], kind)
    if "prompt" in case:
        assert clip.tokenize(case["prompt"]) == case["tokens"]
    with torch.inference_mode():
        embedding, pooled = clip.cond_stage_model.encode_token_weights(case["tokens"], None, True)
    assert embedding.shape == case["embedding"].shape
    difference = float((embedding - case["embedding"]).abs().max())
    if pooled is not None:
        difference = max(difference, float((pooled - case["pooled"]).abs().max()))
    print(f"{name}: {difference:.0e}")
    assert case["embedding"].std() > 0.1
    assert difference <= TEXT


@pytest.mark.parametrize("name", FILES)
def test_loras_call_modules_of_text_encoders_as_in_comfyui(name: str, encoders: tuple[Path, dict[str, Any]]) -> None:
    folder, found = encoders
    kind, files = FILES[name]
    targets = clip_targets(load_clip([folder / f"{file}.safetensors" for file in files], kind))
    keys = {module: key.removesuffix(".weight").replace(".model.", ".") for module, key in found[name]["names"].items()}
    # Of Stable Cascade, and of eyes.
    keys = {module: key for module, key in keys.items() if "_prior_" not in module and ".visual." not in module}
    assert keys
    for module, key in keys.items():
        assert key in [target.key for target in targets.get(module, [])], module


def test_vae_of_videos_on_images(encoders: tuple[Path, dict[str, Any]]) -> None:
    folder, found = encoders
    case = found["frames"]
    assert not isinstance(case, str), f"ComfyUI failed: {case}"
    vae = load_vae(folder / "frames.safetensors")
    latents, images = vae.encode(case["image"]), vae.decode(case["latents"])
    print(f"latents {float((latents - case['latents']).abs().max()):.0e}")
    print(f"images {float((images - case['images']).abs().max()):.0e}")
    assert case["latents"].std() > 0.01 and case["images"].std() > 0.01
    assert float((latents - case["latents"]).abs().max()) <= TEXT
    assert float((images - case["images"]).abs().max()) <= IMAGE
