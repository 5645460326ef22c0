"""Image prompts on the Flux demo model: the same latents from a real ComfyUI's own Flux and in the embedded host."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui.server import ROOT, python_of
from safetensors.torch import load_file

if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to compare the embedded host with the real one"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.comfyui

RUNS: dict[str, list[tuple[int, float, str]]] = {
    "plain": [],
    "one": [(0, 0.9, "all")],
    "halves": [(0, 0.9, "left"), (1, 0.5, "right")],
    "one by InstantX": [(2, 0.9, "all")],
    "halves by both": [(0, 0.9, "left"), (3, 0.5, "right")],
}


def _references(model: Any, folder: Path) -> list[str]:
    """Two precomputed images of a random adapter by XLabs for the demo model, and two of one by InstantX."""
    from tessera.ip_adapter.formats import parse_adapter
    from tessera.ip_adapter.reference import Reference, precompute
    from tessera.ip_adapter.saved import encode_reference
    from tiny_adapters import random_instantx, random_xlabs

    files = []
    for make in (random_xlabs, random_instantx):
        adapter = parse_adapter(make(model.get_model_object("diffusion_model")), "random")
        about = adapter.width, len(adapter.layers), adapter.fingerprint, adapter.name, adapter.joint
        tokens = torch.randn(2, 2, adapter.tokens, adapter.width)
        for found in precompute(tokens, adapter, adapter.layers):
            files.append(folder / f"{len(files)}.reference.safetensors")
            files[-1].write_bytes(encode_reference(Reference(found, *about)))
    return [str(file) for file in files]


def _ours(model: Any, clip: Any, plan: dict[str, Any]) -> dict[str, torch.Tensor]:
    from tessera.host.sampling.ksampler import KSampler
    from tessera.host.sampling.noise import prepare_noise
    from tessera.ip_adapter.prompts import ImagePrompt
    from tessera.ip_adapter.saved import load_reference
    from tessera.nodes.image_prompts import TesseraApplyImagePrompts

    positive = clip.encode_from_tokens_scheduled(clip.tokenize(plan["prompt"]))
    left = torch.zeros(128, 128)
    left[:, :64] = 1
    masks = {"all": None, "left": left, "right": 1 - left}
    references = [load_reference(Path(file)) for file in plan["references"]]
    empty, found = torch.zeros(1, 16, 16, 16), {}
    for name, uses in RUNS.items():
        stack = tuple(ImagePrompt(references[i], scale, "full", mask=masks[side]) for i, scale, side in uses)
        used = TesseraApplyImagePrompts.execute(model, stack, "sum").args[0] if stack else model
        sampler = KSampler(used, plan["steps"], "euler", "simple")
        found[name] = sampler.sample(prepare_noise(empty, 3), positive, positive, 1.0, empty, seed=3, disable_pbar=True)
    return found


def test_latents_are_the_same(tmp_path: Path) -> None:
    from tessera.contract.demo import demo_checkpoint

    model, clip, _ = demo_checkpoint("texture-flux")
    plan = {"prompt": "red and white stripes", "steps": 6, "seed": 3, "runs": RUNS}
    plan["references"] = _references(model, tmp_path)
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    path, out = tmp_path / "plan.json", tmp_path / "latents.safetensors"
    path.write_text(json.dumps(plan), encoding="utf-8")
    script = Path(__file__).with_name("sample_flux_images.py")
    command = [python_of(checkout), str(script), str(checkout), str(ROOT), str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    theirs, ours = load_file(out), _ours(model, clip, plan)
    found = {name: float((ours[name] - theirs[name]).abs().max()) for name in RUNS}
    print(f"\ntexture-flux with images: largest difference of latents {found}")
    assert max(found.values()) <= 1e-3
    assert all((ours[name] - ours["plain"]).abs().max() > 0.1 for name in RUNS if name != "plain")
