"""Runs in ComfyUI's interpreter: samples the demo model with a FaceID adapter.

    python sample_face.py COMFYUI PACK FOLDER OUT.safetensors

FOLDER: adapter.safetensors and me.npy. OUT gets the latents for each strength of the LoRA. A loader
that adds the same LoRA behind the node has to be refused.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from inside import load_pack, start

comfyui, pack, folder, out = sys.argv[1:]
start(comfyui)

import comfy.sample  # noqa: E402  # pyright: ignore[reportMissingImports]
import safetensors.torch  # noqa: E402
import torch  # noqa: E402


def main() -> None:
    load_pack(pack)
    node = importlib.import_module("pack.nodes.image_prompts").TesseraApplyImagePrompts
    prompts, faces = (importlib.import_module(f"pack.ip_adapter.{name}") for name in ("prompts", "faces"))
    adapter = importlib.import_module("pack.ip_adapter.formats").read_adapter(Path(folder, "adapter.safetensors"))
    model, clip, _ = importlib.import_module("pack.contract.demo").demo_checkpoint("texture-sd")
    positive = clip.encode_from_tokens_scheduled(clip.tokenize("red and white stripes"))
    face = faces.Face(faces.read_embedding(Path(folder, "me.npy")))
    stack = (prompts.ImagePrompt(torch.zeros(1, 8, 8, 3), 0.9, "full", face=face),)
    empty = torch.zeros(1, 4, 16, 16)
    noise = comfy.sample.prepare_noise(empty, 3)
    latents = {}
    for lora in (0.0, 0.5):
        used = node.execute(model, stack, "sum", prompts.LoadedAdapter(adapter, None), lora).args[0]
        latents[str(lora)] = comfy.sample.sample(
            used, noise, 4, 1.0, "euler", "normal", positive, positive, empty, seed=3
        ).contiguous()
    layers = importlib.import_module("pack.ip_adapter.layers").find_layers(used.get_model_object("diffusion_model"))
    again = importlib.import_module("pack.contract").add_lora(used, faces.lora_of(adapter, layers), 0.6)
    try:
        comfy.sample.sample(again, noise, 4, 1.0, "euler", "normal", positive, positive, empty, seed=3)
    except ValueError as refused:
        assert "in the model twice" in str(refused), refused
    else:
        raise AssertionError("the LoRA acted twice")
    safetensors.torch.save_file(latents, out)


main()
