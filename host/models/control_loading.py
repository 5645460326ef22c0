"""Control networks from files and folders, by what they hold.

Drop-in replacement for `comfy.controlnet.load_controlnet`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..layouts.ldm_unet import convert_controlnet
from ..layouts.state_dicts import (
    StateDict,
    fill,
    load_state_dict,
    made_of,
    name_keys,
    read_json,
    refuse_quantized,
    with_prefix,
)
from ..runtime import devices
from .architectures import encoder_config, flux_layers
from .control_networks import ControlNet, FluxControlNet
from .diffusers_folder import component_weights

HINT = "controlnet_cond_embedding."
POOLED = ("_shuffle", "_shuffle_fp16")
"""Files of shuffling networks, which act by the mean of what they add, say so in their names only."""

SUPPORTED = "a ControlNet of Stable Diffusion 1.5, SDXL or Flux.1"
OTHERS = {
    "lora_controlnet": "a control LoRA",
    "task_embedding": "a union ControlNet",
    "controlnet_mode_embedder.weight": "a union ControlNet",
    "adapter.body.0.resnets.0.block1.weight": "a T2I adapter",
    "body.0.block1.weight": "a T2I adapter",
    "difference": "the difference of a ControlNet to its model",
    "double_blocks.0.img_attn.norm.key_norm.scale": "a ControlNet of Flux.1 in XLabs' layout",
}
"""What else is found in models/controlnet, by a part of a key."""


def load_controlnet(path: str | Path) -> ControlNet:
    """Return the CONTROL_NET of a file, or of a diffusers folder.

    Raises:
        FileNotFoundError: the path or a part is missing.
        ValueError: it is damaged or its architecture is not supported.
    """
    path = Path(path)
    weights = component_weights(path) if path.is_dir() else load_state_dict(path)
    config = read_json(path / "config.json") if path.is_dir() else None
    with made_of(path):
        return make_controlnet(weights, config, path.stem.lower().endswith(POOLED))


def make_controlnet(sd: StateDict, config: dict[str, Any] | None = None, pooled: bool = False) -> ControlNet:
    """Return the CONTROL_NET of weights.

    Args:
        config: of diffusers' module; derived from shapes when not given.
        pooled: it acts by the mean of what it adds.
    """
    refuse_quantized(sd)
    if found := next((what for key, what in OTHERS.items() if key in sd), None):
        raise ValueError(f"it is {found}, expected {SUPPORTED}")
    dtype = next(iter(sd.values())).dtype
    if "controlnet_x_embedder.weight" in sd:
        return FluxControlNet(_build_flux(sd, devices.model_dtype(dtype, wide_range=True), config))
    sd = with_prefix(sd, "control_model.") or sd
    sd = convert_controlnet(sd) if "input_hint_block.0.weight" in sd else sd
    if f"{HINT}conv_in.weight" not in sd:
        raise ValueError(f"the architecture is not supported: it has {name_keys(sd)}, expected {SUPPORTED}")
    config = config or {**controlnet_config(sd), "global_pool_conditions": pooled}
    return ControlNet(_build(sd, devices.model_dtype(dtype), config))


def controlnet_config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of `ControlNetModel` for weights in its layout."""
    embedded = [f"{HINT}conv_in.weight", *(f"{HINT}blocks.{i}.weight" for i in range(1, len(sd), 2))]
    return {
        **encoder_config(sd),
        "conditioning_channels": sd[f"{HINT}conv_in.weight"].shape[1],
        "conditioning_embedding_out_channels": [sd[key].shape[0] for key in embedded if key in sd],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if "mid_block.attentions.0.norm.weight" in sd else "UNetMidBlock2D",
    }


def _build(sd: StateDict, dtype: torch.dtype, config: dict[str, Any]) -> torch.nn.Module:
    from diffusers.models.controlnets.controlnet import ControlNetModel

    with torch.device("meta"):
        module = ControlNetModel.from_config(config)
    return fill(module, sd, dtype, "the ControlNet")


def _build_flux(sd: StateDict, dtype: torch.dtype, config: dict[str, Any] | None) -> torch.nn.Module:
    from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel

    with torch.device("meta"):
        module = FluxControlNetModel.from_config(config or flux_layers(sd))
    return fill(module, sd, dtype, "the ControlNet")
