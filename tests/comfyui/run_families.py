"""Runs in ComfyUI's interpreter: samples the denoisers of `family_cases` for 4 steps, read by ComfyUI's own loaders.

    python run_families.py COMFYUI RUNS.pt OUT.pt

RUNS.pt holds, by name, the file, both conditionings, noise, guidance scale and scheduler; it may name the file of a
LoRA, and a node that changes the model, by its module and with its inputs.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from inside import allow_small_models, start

comfyui, runs, out = sys.argv[1:]
start(comfyui)

import comfy.sample  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.sd  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.utils  # noqa: E402  # pyright: ignore[reportMissingImports]
import torch  # noqa: E402

STRENGTH = 0.8
"""Of LoRAs."""

allow_small_models()


def sample(run: dict[str, Any]) -> torch.Tensor:
    """Latents."""
    model = comfy.sd.load_diffusion_model(run["path"])
    if "lora" in run:
        weights = comfy.utils.load_torch_file(run["lora"])
        model = comfy.sd.load_lora_for_models(model, None, weights, STRENGTH, 0.0)[0]
    if "node" in run:
        module, node, inputs = run["node"]
        patch = getattr(importlib.import_module(f"comfy_extras.{module}"), node)
        model = patch.execute(model, **inputs).args[0]
    noise = run["noise"][:, :, None] if run["frames"] else run["noise"]
    for _, values in [*run["positive"], *run["negative"]] if run["frames"] else []:
        values |= {"reference_latents": [each[:, :, None] for each in values.get("reference_latents", [])]}
    latents = torch.zeros_like(noise)
    arguments = (noise, 4, run["cfg"], "euler", run["scheduler"], run["positive"], run["negative"], latents)
    found = comfy.sample.sample(model, *arguments, denoise=1.0, seed=0, disable_pbar=True)
    return found[:, :, 0] if run["frames"] else found


found: dict[str, Any] = {}
for name, run in torch.load(runs, weights_only=False).items():
    try:
        with torch.inference_mode():
            found[name] = sample(run)
    except Exception as error:
        found[name] = repr(error)
torch.save(found, out)
