"""Image prompts on a small random Stable Diffusion 3.5: ComfyUI's network against diffusers' adapter classes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comfyui.family_cases import CASES, prompts, write
from comfyui.sample_families import difference
from comfyui.server import ROOT, python_of
from tessera.host.models.families.sd3 import SD3
from tessera.host.models.loaders import load_diffusion_model
from tessera.host.sampling.ksampler import KSampler
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tiny_adapters import random_timed
from torch import Tensor

if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to compare image prompts with diffusers"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.comfyui

CASE, PATCH, SCALE = "sd35-large", 48, 0.9
RUNS: dict[str, list[tuple[int, float, str]]] = {
    "plain": [],
    "one": [(0, SCALE, "all")],
    "two": [(0, SCALE, "all"), (1, 0.4, "all")],
    "halves": [(0, SCALE, "left"), (1, 0.5, "right")],
}


class Seeing(SD3):
    """Stable Diffusion 3.5 with diffusers' own adapter: an image for positive rows, zeros for negative ones."""

    seen: Tensor

    def forward_transformer(self, x: Tensor, timestep: Tensor, context: Tensor, y: Any, **conds: Any) -> Tensor:
        # The embedded host runs the negative prompt first.
        rows = torch.cat([torch.zeros_like(self.seen), self.seen]).repeat_interleave(len(x) // 2, 0)
        given = {"joint_attention_kwargs": {"ip_adapter_image_embeds": rows}}
        return self.diffusion_model(x, context, y, timestep, **given, return_dict=False)[0]


def _sample(model: Any) -> Tensor:
    positive, negative, noise = prompts(CASES[CASE])
    sampler = KSampler(model, 4, "euler", "simple", 1.0)
    with torch.inference_mode():
        return sampler.sample(noise, positive, negative, CASES[CASE].cfg, torch.zeros_like(noise), seed=0)


def _ours(model: Any, loaded: LoadedAdapter, uses: list[tuple[int, float, str]]) -> Tensor:
    left = torch.zeros(*(8 * side for side in prompts(CASES[CASE])[2].shape[-2:]))
    left[:, : left.shape[1] // 2] = 1
    masks = {"all": None, "left": left, "right": 1 - left}
    images = [(torch.full((1, 16, 16, 3), image / 10), scale, masks[side]) for image, scale, side in uses]
    stack = tuple(ImagePrompt(image, scale, "full", mask=mask) for image, scale, mask in images)
    return _sample(TesseraApplyImagePrompts.execute(model, stack, "sum", loaded).args[0] if stack else model)


def _theirs(path: Path, weights: Any, seen: Tensor) -> Tensor:
    """What diffusers' own classes give for the first image alone."""
    model = load_diffusion_model(path)
    network = model.model.diffusion_model
    network._load_ip_adapter_weights(weights, low_cpu_mem_usage=False)
    for processor in network.attn_processors.values():
        processor.scale = SCALE
    model.model.__class__, model.model.seen = Seeing, seen[:1]
    return _sample(model)


def test_latents_are_those_of_diffusers(tmp_path: Path) -> None:
    write(tmp_path, [CASE])
    path = tmp_path / f"{CASE}.safetensors"
    model = load_diffusion_model(path)
    weights = random_timed(model.model.diffusion_model, PATCH)
    torch.save(weights, tmp_path / "ip-adapter.bin")
    seen = torch.randn(2, 9, PATCH, generator=torch.Generator().manual_seed(4))
    positive, negative, noise = prompts(CASES[CASE])
    plan = {"model": str(path), "adapter": str(tmp_path / "ip-adapter.bin"), "seen": seen, "noise": noise, "runs": RUNS}
    plan |= {"positive": positive, "negative": negative, "cfg": CASES[CASE].cfg, "combine": "sum"}
    torch.save(plan, tmp_path / "plan.pt")
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    script = Path(__file__).with_name("sample_sd3_images.py")
    files = [str(tmp_path / name) for name in ("plan.pt", "out.pt")]
    command = [python_of(checkout), str(script), str(checkout), str(ROOT), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    comfyui = torch.load(files[1])
    rows: Any = lambda image: seen[image[:, 0, 0, 0].mul(10).round().long()]  # noqa: E731
    encoder = SimpleNamespace(encode_image=lambda image, crop: SimpleNamespace(penultimate_hidden_states=rows(image)))
    loaded = LoadedAdapter(parse_adapter(weights, "random"), encoder)
    hosted = {name: _ours(model, loaded, uses) for name, uses in RUNS.items()}
    found = {name: difference(hosted[name], comfyui[name]) for name in RUNS}
    found["one, diffusers' own"] = difference(comfyui["one"], _theirs(path, weights, seen))
    print(f"\nStable Diffusion 3.5 with images: largest difference of latents {found}")
    assert max(found.values()) <= 1e-3
    assert all(difference(comfyui[name], comfyui["plain"]) > 0.05 for name in RUNS if name != "plain")
