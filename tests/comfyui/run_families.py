"""Runs in ComfyUI's interpreter: samples the denoisers of `family_cases` for 4 steps, read by ComfyUI's own loaders.

    python run_families.py COMFYUI RUNS.pt OUT.pt

RUNS.pt holds, by name, the file, both conditionings, noise, guidance scale and scheduler; it may name the file of a
LoRA, and a node that changes the model, by its module and with its inputs.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from inside import start

comfyui, runs, out = sys.argv[1:]
start(comfyui)

import comfy.sample  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.sd  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.utils  # noqa: E402  # pyright: ignore[reportMissingImports]
import torch  # noqa: E402
from comfy import model_detection, supported_models  # noqa: E402  # pyright: ignore[reportMissingImports]

STRENGTH = 0.8
"""Of LoRAs."""

detect = model_detection.detect_unet_config


def smaller(state_dict: Any, prefix: str, metadata: Any = None) -> Any:
    """What ComfyUI detects, for Z-Image of a smaller width: it knows the width of the published one alone."""
    config = detect(state_dict, prefix, metadata)
    if config and config.get("image_model") == "lumina2" and "n_heads" not in config:
        heads = config["dim"] // 128
        config |= {"n_heads": heads, "n_kv_heads": heads, "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512]}
        config |= {"rope_theta": 256.0, "ffn_dim_multiplier": 8.0 / 3.0, "z_image_modulation": True}
        config |= {"time_scale": 1000.0, "pad_tokens_multiple": 32}
        supported_models.ZImage.unet_config["dim"] = config["dim"]
    return config


def narrower(state_dict: Any, prefix: str, metadata: Any = None) -> Any:
    """What ComfyUI detects, for Qwen-Image of a smaller width."""
    config = smaller(state_dict, prefix, metadata)
    if config and config.get("image_model") == "qwen_image":
        heads = state_dict[f"{prefix}img_in.weight"].shape[0] // 128
        width = state_dict[f"{prefix}txt_norm.weight"].shape[0]
        config |= {"num_attention_heads": heads, "joint_attention_dim": width}
    return config


def shallower(state_dict: Any, prefix: str, metadata: Any = None) -> Any:
    """What ComfyUI detects, for Chroma with smaller networks."""
    config = narrower(state_dict, prefix, metadata)
    if config and config.get("image_model") == "chroma":
        guide = f"{prefix}distilled_guidance_layer."
        config |= {"hidden_dim": state_dict[f"{guide}in_proj.weight"].shape[0], "out_dim": config["hidden_size"]}
        config["n_layers"] = model_detection.count_blocks(list(state_dict), f"{guide}layers." + "{}.")
    return config


model_detection.detect_unet_config = shallower


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
