"""What scripts need that run in ComfyUI's interpreter: ComfyUI itself, on the CPU, and the pack."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def start(comfyui: str) -> None:
    """Let `comfy` be imported from the folder `comfyui`, with the options of the reference."""
    sys.path.insert(0, comfyui)
    sys.argv = [sys.argv[0], "--cpu", "--force-fp32"]

    import comfy.options  # pyright: ignore[reportMissingImports]

    comfy.options.enable_args_parsing()


def load_pack(folder: str) -> None:
    """Import the pack as ComfyUI does; its modules are `pack.nodes`, `pack.contract`, ..."""
    spec = importlib.util.spec_from_file_location("pack", f"{folder}/__init__.py")
    assert spec is not None and spec.loader is not None
    sys.modules["pack"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    importlib.import_module("pack.contract").choose("comfyui")


def allow_small_models() -> None:
    """Let ComfyUI read small models of families of which it knows the sizes of the published ones alone."""
    from comfy import model_detection, supported_models  # pyright: ignore[reportMissingImports]

    detect = model_detection.detect_unet_config

    def smaller(state_dict: Any, prefix: str, metadata: Any = None) -> Any:
        config = detect(state_dict, prefix, metadata)
        kind = config.get("image_model") if config else None
        if kind == "lumina2" and "n_heads" not in config:
            heads = config["dim"] // 128
            config |= {"n_heads": heads, "n_kv_heads": heads, "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512]}
            config |= {"rope_theta": 256.0, "ffn_dim_multiplier": 8.0 / 3.0, "z_image_modulation": True}
            config |= {"time_scale": 1000.0, "pad_tokens_multiple": 32}
            supported_models.ZImage.unet_config["dim"] = config["dim"]
        if kind == "qwen_image":
            heads = state_dict[f"{prefix}img_in.weight"].shape[0] // 128
            width = state_dict[f"{prefix}txt_norm.weight"].shape[0]
            config |= {"num_attention_heads": heads, "joint_attention_dim": width}
        if kind == "chroma":
            guide = f"{prefix}distilled_guidance_layer."
            config |= {"hidden_dim": state_dict[f"{guide}in_proj.weight"].shape[0], "out_dim": config["hidden_size"]}
            config["n_layers"] = model_detection.count_blocks(list(state_dict), f"{guide}layers." + "{}.")
        return config

    model_detection.detect_unet_config = smaller
