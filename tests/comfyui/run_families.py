"""Runs in ComfyUI's interpreter: samples the denoisers of `family_cases` for 4 steps, read by ComfyUI's own loaders.

    python run_families.py COMFYUI RUNS.pt OUT.pt

RUNS.pt holds, by name, the file, both conditionings, noise, guidance scale and scheduler.
"""

from __future__ import annotations

import sys
from typing import Any

from inside import start

comfyui, runs, out = sys.argv[1:]
start(comfyui)

import comfy.sample  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.sd  # noqa: E402  # pyright: ignore[reportMissingImports]
import torch  # noqa: E402


def sample(run: dict[str, Any]) -> torch.Tensor:
    """Latents."""
    model = comfy.sd.load_diffusion_model(run["path"])
    latents = torch.zeros_like(run["noise"])
    arguments = (run["noise"], 4, run["cfg"], "euler", run["scheduler"], run["positive"], run["negative"], latents)
    return comfy.sample.sample(model, *arguments, denoise=1.0, seed=0, disable_pbar=True)


found: dict[str, Any] = {}
for name, run in torch.load(runs, weights_only=False).items():
    try:
        with torch.inference_mode():
            found[name] = sample(run)
    except Exception as error:
        found[name] = repr(error)
torch.save(found, out)
