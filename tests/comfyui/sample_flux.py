"""Runs in ComfyUI's interpreter: samples the Flux demo model with negative prompts.

    python sample_flux.py COMFYUI PACK RUNS.json OUT.safetensors

RUNS.json: {"prompt", "negative", "steps", "seed", "runs": {name: [strength, method]}}; OUT gets the latents of each.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from inside import load_pack, start

comfyui, pack, wanted, out = sys.argv[1:]
start(comfyui)

import comfy.sample  # noqa: E402  # pyright: ignore[reportMissingImports]
import safetensors.torch  # noqa: E402
import torch  # noqa: E402


def main() -> None:
    load_pack(pack)
    node = importlib.import_module("pack.nodes.flux_negative").TesseraFluxNegative
    model, clip, _ = importlib.import_module("pack.contract.demo").demo_checkpoint("texture-flux")
    plan = json.loads(Path(wanted).read_text(encoding="utf-8"))
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(plan[n])) for n in ("prompt", "negative"))
    empty = torch.zeros(1, 16, 16, 16)
    noise = comfy.sample.prepare_noise(empty, plan["seed"])
    latents = {}
    for name, (strength, method) in plan["runs"].items():
        steered = node.execute(model, negative, strength, method, 0.0, 0.5).args[0]
        latents[name] = comfy.sample.sample(
            steered, noise, plan["steps"], 1.0, "euler", "simple", positive, positive, empty, seed=plan["seed"]
        ).contiguous()
    safetensors.torch.save_file(latents, out)


main()
