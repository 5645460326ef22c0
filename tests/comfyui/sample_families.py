"""Samples the denoisers of `family_cases` in the embedded host and in ComfyUI."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui.family_cases import CASES, prompts
from comfyui.server import python_of
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.ksampler import KSampler


def asked(request: pytest.FixtureRequest, names: Iterable[str]) -> list[str]:
    """Those of a module's cases that are to run; the others are not written and sampled for nothing."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    found = {item.callspec.params.get("name") for item in items if item.path == request.path and item.callspec}
    return [name for name in names if name in found]


def run_of(name: str, folder: Path) -> dict[str, Any]:
    """What ComfyUI is to sample."""
    case = CASES[name]
    positive, negative, noise = prompts(case)
    file = {"path": str(folder / f"{name}.safetensors"), "frames": case.frames}
    settings = {"cfg": case.cfg, "scheduler": case.scheduler}
    return {**file, **settings, "positive": positive, "negative": negative, "noise": noise}


def in_comfyui(folder: Path, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """ComfyUI's latents of each run, or what it said."""
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    torch.save(runs, folder / "runs.pt")
    script = Path(__file__).parent / "run_families.py"
    command = [python_of(checkout), str(script), str(checkout), str(folder / "runs.pt"), str(folder / "out.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(folder / "out.pt")


def sample(name: str, model: ModelPatcher) -> torch.Tensor:
    """Our latents of a case."""
    case = CASES[name]
    positive, negative, noise = prompts(case)
    sampler = KSampler(model, 4, "euler", case.scheduler, 1.0)
    with torch.inference_mode():
        return sampler.sample(noise, positive, negative, case.cfg, torch.zeros_like(noise), seed=0)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference; latents of trained models have a deviation of about one, others are brought to it."""
    return float((found - expected).abs().max() / max(1.0, float(expected.std())))
