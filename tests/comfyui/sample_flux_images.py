"""Runs in ComfyUI's interpreter: samples the Flux demo model with saved references.

    python sample_flux_images.py COMFYUI PACK PLAN.json OUT.safetensors

PLAN.json: {"prompt", "steps", "seed", "references": [files], "runs": {name: [[reference, scale, side], ...]}}, where
side is "all", or the half in which the reference acts: "left" or "right". OUT gets the latents of each run.
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
    node = importlib.import_module("pack.nodes.image_prompts").TesseraApplyImagePrompts
    prompt = importlib.import_module("pack.ip_adapter.prompts").ImagePrompt
    read = importlib.import_module("pack.ip_adapter.saved").load_reference
    model, clip, _ = importlib.import_module("pack.contract.demo").demo_checkpoint("texture-flux")
    plan = json.loads(Path(wanted).read_text(encoding="utf-8"))
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(plan["prompt"]))
    references = [read(Path(file)) for file in plan["references"]]
    left = torch.zeros(128, 128)
    left[:, :64] = 1
    masks = {"all": None, "left": left, "right": 1 - left}
    empty = torch.zeros(1, 16, 16, 16)
    noise = comfy.sample.prepare_noise(empty, plan["seed"])
    latents = {}
    for name, uses in plan["runs"].items():
        stack = tuple(prompt(references[i], scale, "full", mask=masks[side]) for i, scale, side in uses)
        used = node.execute(model, stack, "sum").args[0] if stack else model
        latents[name] = comfy.sample.sample(
            used, noise, plan["steps"], 1.0, "euler", "simple", positive, positive, empty, seed=plan["seed"]
        ).contiguous()
    safetensors.torch.save_file(latents, out)


main()
