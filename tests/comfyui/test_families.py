"""Each model family: latents after 4 steps, ComfyUI's own loaders and networks against the embedded host's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from comfyui.family_cases import CASES, write
from comfyui.sample_families import asked, difference, in_comfyui, run_of, sample
from tessera.host.models.loaders import load_diffusion_model

if "COMFYUI_PATH" not in os.environ:
    pytest.skip("no COMFYUI_PATH: set it to a ComfyUI checkout to compare families", allow_module_level=True)

pytestmark = pytest.mark.comfyui

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def chosen(request: pytest.FixtureRequest) -> list[str]:
    return asked(request, CASES)


@pytest.fixture(scope="module")
def files(chosen: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    write(folder, chosen)
    return folder


@pytest.fixture(scope="module")
def theirs(chosen: list[str], files: Path) -> dict[str, Any]:
    return in_comfyui(files, {name: run_of(name, files) for name in chosen})


@pytest.mark.parametrize("name", CASES)
def test_latents_after_four_steps(name: str, files: Path, theirs: dict[str, Any]) -> None:
    expected = theirs[name]
    assert not isinstance(expected, str), f"ComfyUI failed: {expected}"
    found = sample(name, load_diffusion_model(files / f"{name}.safetensors"))
    print(f"{name}: {difference(found, expected):.0e}")
    assert expected.std() > 0.1
    assert difference(found, expected) <= TOLERANCE
