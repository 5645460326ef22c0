"""The Flux demo model with a negative prompt: the same latents in a real ComfyUI and in the embedded host."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from comfyui.server import ROOT, python_of
from safetensors.torch import load_file

if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to compare the embedded host with the real one"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.comfyui

RUNS: dict[str, tuple[float, str]] = {
    "plain": (0.0, "auto"),
    "nag": (4.0, "nag"),
    "nag_strong": (4.0, "nag_strong"),
    "cfg": (2.0, "cfg"),
}
PLAN = {"prompt": "red and white stripes", "negative": "red", "steps": 8, "seed": 3, "runs": RUNS}


def _ours() -> dict[str, torch.Tensor]:
    from tessera.contract.demo import demo_checkpoint
    from tessera.host.sampling.ksampler import KSampler
    from tessera.host.sampling.noise import prepare_noise
    from tessera.nodes.flux_negative import TesseraFluxNegative

    model, clip, _ = demo_checkpoint("texture-flux")
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(PLAN[n])) for n in ("prompt", "negative"))
    empty, found = torch.zeros(1, 16, 16, 16), {}
    for name, (strength, method) in RUNS.items():
        steered = TesseraFluxNegative.execute(model, negative, strength, method, 0.0, 0.5).args[0]
        sampler = KSampler(steered, 8, "euler", "simple")
        found[name] = sampler.sample(prepare_noise(empty, 3), positive, positive, 1.0, empty, seed=3, disable_pbar=True)
    return found


def test_latents_are_the_same(tmp_path: Path) -> None:
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    plan, out = tmp_path / "plan.json", tmp_path / "latents.safetensors"
    plan.write_text(json.dumps(PLAN), encoding="utf-8")
    script = Path(__file__).with_name("sample_flux.py")
    command = [python_of(checkout), str(script), str(checkout), str(ROOT), str(plan), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    theirs, ours = load_file(out), _ours()
    found = {name: float((ours[name] - theirs[name]).abs().max()) for name in RUNS}
    print(f"\ntexture-flux: largest difference of latents {found}")
    assert max(found.values()) <= 1e-3
    assert all((ours[name] - ours["plain"]).abs().max() > 0.1 for name in RUNS if name != "plain")
