"""Adapters in the layouts of every trainer on each family: latents after 4 steps, ComfyUI against the embedded host."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui.family_cases import write
from comfyui.lora_cases import LORAS, write_loras
from comfyui.sample_families import asked, difference, in_comfyui, run_of, sample
from tessera.host.models.loaders import load_diffusion_model
from tessera.host.models.lora import load_lora_file

if "COMFYUI_PATH" not in os.environ:
    pytest.skip("no COMFYUI_PATH: set it to a ComfyUI checkout to compare LoRAs", allow_module_level=True)

pytestmark = pytest.mark.comfyui

TOLERANCE = 1e-4
STRENGTH = 0.8


@pytest.fixture(scope="module")
def chosen(request: pytest.FixtureRequest) -> list[str]:
    return asked(request, LORAS)


@pytest.fixture(scope="module")
def files(chosen: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    write(folder, list(dict.fromkeys(LORAS[name][0] for name in chosen)))
    write_loras(folder, chosen)
    return folder


@pytest.fixture(scope="module")
def theirs(chosen: list[str], files: Path) -> dict[str, Any]:
    runs = {name: run_of(LORAS[name][0], files) for name in chosen}
    with_loras = {name: {**run, "lora": str(files / f"{name}.safetensors")} for name, run in runs.items()}
    return in_comfyui(files, with_loras)


@pytest.fixture(scope="module")
def plain(files: Path) -> Callable[[str], torch.Tensor]:
    """Latents of a case without an adapter."""
    return cache(lambda family: sample(family, load_diffusion_model(files / f"{family}.safetensors")))


@pytest.mark.parametrize("name", LORAS)
def test_latents_with_an_adapter(
    name: str,
    files: Path,
    theirs: dict[str, Any],
    plain: Callable[[str], torch.Tensor],
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected, family = theirs[name], LORAS[name][0]
    assert not isinstance(expected, str), f"ComfyUI failed: {expected}"
    model = load_diffusion_model(files / f"{family}.safetensors")
    with caplog.at_level(logging.WARNING):
        changed, _ = load_lora_file(model, None, files / f"{name}.safetensors", STRENGTH, 0.0)
    assert changed is not None and "not used" not in caplog.text
    found = sample(family, changed)
    change = difference(plain(family), found)
    print(f"{name}: {difference(found, expected):.0e}, changed by {change:.1f}")
    assert change > 0.05
    assert difference(found, expected) <= TOLERANCE
