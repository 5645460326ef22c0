"""A single-file checkpoint of Stable Diffusion 1.5's real size with random weights: ComfyUI knows no smaller one."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_models import (
    original_unet,
    original_vae,
    save,
    text_config,
    text_weights,
    unet_weights,
    vae_weights,
    with_prefix,
)

UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
}
TEXT = text_config(768) | {"num_hidden_layers": 12, "intermediate_size": 3072}


def write(path: Path) -> Path:
    """Write the checkpoint, 2 GB in half precision, the same every time."""
    weights = (
        with_prefix("model.diffusion_model.", original_unet(unet_weights(UNET)))
        | with_prefix("first_stage_model.", original_vae(vae_weights(VAE)))
        | with_prefix("cond_stage_model.transformer.", text_weights(TEXT))
    )
    return save(path, {key: tensor.to(torch.float16) for key, tensor in weights.items()})
