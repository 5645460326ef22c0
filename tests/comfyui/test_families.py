"""Each model family: latents after 4 steps, ComfyUI's own loaders and networks against the embedded host's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui.family_cases import CASES, prompts, write
from comfyui.server import python_of
from tessera.host.models.loaders import load_diffusion_model
from tessera.host.sampling.ksampler import KSampler

if "COMFYUI_PATH" not in os.environ:
    pytest.skip("no COMFYUI_PATH: set it to a ComfyUI checkout to compare families", allow_module_level=True)

pytestmark = pytest.mark.comfyui

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def chosen(request: pytest.FixtureRequest) -> list[str]:
    """The cases that are asked for; the others are not written and sampled for nothing."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = {item.callspec.params.get("name") for item in items if item.path == request.path and item.callspec}
    return [name for name in CASES if name in asked]


@pytest.fixture(scope="module")
def files(chosen: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    write(folder, chosen)
    return folder


@pytest.fixture(scope="module")
def theirs(chosen: list[str], files: Path) -> Iterator[dict[str, Any]]:
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    runs = {}
    for name in chosen:
        case = CASES[name]
        positive, negative, noise = prompts(case)
        run = {
            "path": str(files / f"{name}.safetensors"),
            "cfg": case.cfg,
            "scheduler": case.scheduler,
            "frames": case.frames,
        }
        runs[name] = run | {"positive": positive, "negative": negative, "noise": noise}
    torch.save(runs, files / "runs.pt")
    script = Path(__file__).parent / "run_families.py"
    command = [python_of(checkout), str(script), str(checkout), str(files / "runs.pt"), str(files / "out.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout)
    assert done.returncode == 0, done.stderr[-4000:]
    yield torch.load(files / "out.pt")


@pytest.mark.parametrize("name", CASES)
def test_latents_after_four_steps(name: str, files: Path, theirs: dict[str, Any]) -> None:
    expected = theirs[name]
    assert not isinstance(expected, str), f"ComfyUI failed: {expected}"
    case = CASES[name]
    positive, negative, noise = prompts(case)
    model = load_diffusion_model(files / f"{name}.safetensors")
    sampler = KSampler(model, 4, "euler", case.scheduler, 1.0)
    with torch.inference_mode():
        latents = sampler.sample(noise, positive, negative, case.cfg, torch.zeros_like(noise), seed=0)
    # Latents of trained models have a deviation of about one; those of random ones are brought to it.
    difference = float((latents - expected).abs().max() / max(1.0, float(expected.std())))
    print(f"{name}: {difference:.0e}")
    assert expected.std() > 0.1
    assert difference <= TOLERANCE
