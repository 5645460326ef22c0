"""A FaceID adapter with its LoRA on the demo model: the same latents in a real ComfyUI and in the embedded host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui.server import ROOT, python_of
from safetensors.torch import load_file, save_file

if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to compare the embedded host with the real one"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.comfyui


def _ours(folder: Path) -> dict[str, torch.Tensor]:
    from tessera.contract.demo import demo_checkpoint
    from tessera.host.sampling.ksampler import KSampler
    from tessera.host.sampling.noise import prepare_noise
    from tessera.ip_adapter.faces import Face, read_embedding
    from tessera.ip_adapter.formats import read_adapter
    from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
    from tessera.nodes.image_prompts import TesseraApplyImagePrompts
    from tiny_adapters import flat, random_adapter, random_lora

    model, clip, _ = demo_checkpoint("texture-sd")
    network = model.get_model_object("diffusion_model")
    weights = random_adapter(network, "face")
    weights["ip_adapter"] |= random_lora(network)
    save_file(flat(weights), folder / "adapter.safetensors")
    np.save(folder / "me.npy", np.random.default_rng(0).normal(size=512))
    positive = clip.encode_from_tokens_scheduled(clip.tokenize("red and white stripes"))
    face = Face(read_embedding(folder / "me.npy"))
    stack = (ImagePrompt(torch.zeros(1, 8, 8, 3), 0.9, "full", face=face),)
    loaded = LoadedAdapter(read_adapter(folder / "adapter.safetensors"), None)
    empty, found = torch.zeros(1, 4, 16, 16), {}
    for lora in (0.0, 0.5):
        used = TesseraApplyImagePrompts.execute(model, stack, "sum", loaded, lora).args[0]
        sampler = KSampler(used, 4, "euler", "normal")
        noise = prepare_noise(empty, 3)
        found[str(lora)] = sampler.sample(noise, positive, positive, 1.0, empty, seed=3, disable_pbar=True)
    return found


def test_latents_are_the_same(tmp_path: Path) -> None:
    ours, out = _ours(tmp_path), tmp_path / "latents.safetensors"
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    script = Path(__file__).with_name("sample_face.py")
    command = [python_of(checkout), str(script), str(checkout), str(ROOT), str(tmp_path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    theirs = load_file(out)
    found = {name: float((ours[name] - theirs[name]).abs().max()) for name in ours}
    print(f"\ntexture-sd with a face: largest difference of latents {found}")
    assert max(found.values()) <= 1e-3
    assert (ours["0.0"] - ours["0.5"]).abs().max() > 0.1
