"""On a GPU: hooks give what they give on a CPU, and make no step wait. The table of benchmarks/gpu.py runs anywhere."""

from __future__ import annotations

import copy
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tessera
import torch
from tessera.host.models.model_base import SD15
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter.attend import COMBINES
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.hooks import KEY, RUN
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.ip_adapter.run import RunMemory
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tessera.nodes.seamless import TesseraSeamlessModel
from tessera.patching.wrappers import installed
from tessera.tiling.hooks import PERIOD, SEED
from tiny_adapters import Encoder, plain_image, random_adapter
from torch import Tensor
from torch.nn import functional as F

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WORKFLOWS = Path(__file__).with_name("workflows")
SIZE = (16, 16)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def _predict(model: Any, device: str) -> Tensor:
    model.model.to(device)
    memory = RunMemory.begin(installed(model, KEY).kept, SIZE)
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers, "cond_or_uncond": [1, 0]}
    to |= {RUN: memory, PERIOD: SIZE, SEED: 1}
    generator = torch.Generator().manual_seed(1)
    x, text = (torch.randn(s, generator=generator).to(device) for s in ((2, 4, *SIZE), (2, 7, 16)))
    call = {"x": x, "t": torch.ones(2, device=device), "c_crossattn": text, "transformer_options": to}
    model.model.apply_model(**call)
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        return model.model.apply_model(**call)
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_image_prompts_on_a_seamless_unet(sd15_unet: Any, combine: str, masked: bool) -> None:
    """As on the CPU, without a wait in the second step."""
    found = []
    for device in ("cpu", "cuda"):
        model = ModelPatcher(SD15(copy.deepcopy(sd15_unet)), device, device)
        loaded = LoadedAdapter(parse_adapter(random_adapter(sd15_unet, "plus"), "plus"), Encoder())
        masks = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)) if masked else [None] * 3
        prompts = tuple(ImagePrompt(plain_image(0.3 * i), 0.6, "full", mask=mask) for i, mask in enumerate(masks))
        applied = TesseraApplyImagePrompts.execute(model, prompts, combine, loaded).args[0]
        seamless = TesseraSeamlessModel.execute(applied, "both", 0.0, 1.0, "circular").args[0]
        found.append(_predict(seamless, device).cpu())
    # Convolutions of a GPU may take TF32.
    torch.testing.assert_close(found[0], found[1], atol=1e-2, rtol=1e-2)


def _similarity(one: Tensor, other: Tensor) -> float:
    """Structural similarity (Wang et al. 2004) of images (C, H, W) in 0..1, in windows of 7 px."""
    means = [F.avg_pool2d(each, 7, 1) for each in (one, other, one * one, other * other, one * other)]
    a, b, aa, bb, ab = means
    lightness = (2 * a * b + 0.01**2) / (a * a + b * b + 0.01**2)
    structure = (2 * (ab - a * b) + 0.03**2) / (aa - a * a + bb - b * b + 0.03**2)
    return float((lightness * structure).mean())


def test_similarity_is_one_of_equal_images_and_falls_with_noise() -> None:
    image = plain_image(0.5)[0].movedim(-1, 0) + 0.2 * torch.rand(3, *plain_image(0.5).shape[1:3])
    noisy = [image + scale * torch.randn(image.shape) for scale in (0.02, 0.1)]
    found = [_similarity(image, each) for each in (image, *noisy)]
    assert found[0] == pytest.approx(1, abs=1e-5) and found[0] > found[1] > found[2]


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("name", ["seamless_texture", "flux_negative", "image_prompts"])
def test_the_demo_models_draw_the_same_in_half_precision(name: str, tmp_path: Path) -> None:
    drawn = []
    for device, dtype in (("cpu", "fp32"), ("cuda", "fp16")):
        workflow = WORKFLOWS / f"{name}.api.json"
        images = tessera.run(workflow, output_dir=tmp_path / device, device=device, dtype=dtype)
        drawn.append([torch.from_numpy(np.array(image.convert("RGB")) / 255).movedim(-1, 0) for image in images])
    assert drawn[0] and len(drawn[0]) == len(drawn[1])
    assert min(map(_similarity, *drawn)) >= 0.99


@torch.no_grad()
def test_the_table_runs_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--small", "--rounds", "1", "--device", "cpu", "--json", str(written)])
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    try:
        runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
    finally:
        torch.set_grad_enabled(True)
    rows = json.loads(written.read_text(encoding="utf-8"))
    assert {row["hook"] for row in rows} == {"seamless", "1 image", "10 images", "negative"}
    assert all(row["ratio"] > 0 and row["ops added"] > 0 for row in rows)
    assert f"| {rows[0]['shape']} |" in capsys.readouterr().out
