"""Runs in ComfyUI's interpreter: samples small models with image prompts of random adapters.

    python sample_adapters.py COMFYUI PACK PLAN.pt OUT.pt

PLAN.pt: by name {"model": file, "adapter": file, "seen": what the encoder sees (n, P, E), "positive", "negative",
"noise", "cfg", "runs": {name: [[image, scale, side], ...]}}, where side is "all", "left" or "right". OUT.pt gets the
latents of each run.
"""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

from inside import allow_small_models, load_pack, start

comfyui, pack, wanted, out = sys.argv[1:]
start(comfyui)

import comfy.sample  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.sd  # noqa: E402  # pyright: ignore[reportMissingImports]
import torch  # noqa: E402


class Encoder:
    """Stands for a CLIP_VISION: an image's red says which of the rows it is."""

    def __init__(self, seen: torch.Tensor) -> None:
        self.seen = seen

    def encode_image(self, image: torch.Tensor, crop: bool = True) -> Any:
        rows = image[:, 0, 0, 0].mul(10).round().long()
        seen = self.seen[rows]
        return SimpleNamespace(penultimate_hidden_states=seen, image_embeds=seen.mean(1))


def sample(plan: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Latents by name of the run."""
    node = importlib.import_module("pack.nodes.image_prompts").TesseraApplyImagePrompts
    prompts = importlib.import_module("pack.ip_adapter.prompts")
    adapter = importlib.import_module("pack.ip_adapter.formats").read_adapter(plan["adapter"])
    loaded = prompts.LoadedAdapter(adapter, Encoder(plan["seen"]))
    model = comfy.sd.load_diffusion_model(plan["model"])
    height, width = (8 * side for side in plan["noise"].shape[-2:])
    left = torch.zeros(height, width)
    left[:, : width // 2] = 1
    masks = {"all": None, "left": left, "right": 1 - left}
    latents = {}
    for name, uses in plan["runs"].items():
        images = [(torch.full((1, 16, 16, 3), image / 10), scale, masks[side]) for image, scale, side in uses]
        stack = tuple(prompts.ImagePrompt(image, scale, "full", mask=mask) for image, scale, mask in images)
        used = node.execute(model, stack, "sum", loaded).args[0] if stack else model
        given = (plan["noise"], 4, plan["cfg"], "euler", "simple", plan["positive"], plan["negative"])
        with torch.inference_mode():
            empty = torch.zeros_like(plan["noise"])
            latents[name] = comfy.sample.sample(used, *given, empty, seed=0, disable_pbar=True).contiguous()
    return latents


load_pack(pack)
allow_small_models()
torch.save({name: sample(plan) for name, plan in torch.load(wanted).items()}, out)
