"""The shapes of `texture-sd` and its diffusers folder.

ComfyUI's own modules can hold these shapes: all group norms have 32 groups and every channel count is a multiple of 32.
At full resolution the VAE has 64 channels, because 32 groups of one channel would be an instance norm, which takes
away flat colours.
"""

# diffusers declares its classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .captions import vocabulary
from .tokens import LENGTH, write_tokenizer

FACTOR = 8
"""Pixels along a side of one latent."""

SCALING = 0.18215
"""SD 1.5's latent scale. The VAE's convolutions are folded so that latents times this have mean 0 and deviation 1."""


def new_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(64, 64, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=128,
        scaling_factor=SCALING,
    )


def new_unet() -> UNet2DConditionModel:
    """Three levels of 64, 128 and 128 channels, cross attention with 4 heads on the lower two."""
    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128, 128),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=32,
    )


def new_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write the tokenizer's files into `folder` and load them."""
    write_tokenizer(folder, vocabulary())
    return CLIPTokenizer.from_pretrained(folder)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    end = tokenizer.convert_tokens_to_ids(tokenizer.eos_token)
    start = tokenizer.convert_tokens_to_ids(tokenizer.bos_token)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=128,
            hidden_act="quick_gelu",
            bos_token_id=start,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def new_scheduler() -> EulerDiscreteScheduler:
    """SD 1.5's noise schedule with v-prediction (Salimans and Ho 2022)."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        steps_offset=1,
        timestep_spacing="leading",
    )


def save_pipeline(
    folder: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a diffusers folder of StableDiffusionPipeline; the modules given are converted to `dtype`."""
    modules: tuple[nn.Module, ...] = (vae, encoder, unet)
    for module in modules:
        module.to(dtype)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=new_tokenizer(folder / "tokenizer"),
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    forget_origins(folder)
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)  # vocab.json and merges.txt say the same
    write_tokenizer(folder / "tokenizer", vocabulary())


def forget_origins(folder: Path) -> None:
    """Take out of all configs below `folder` where their weights once lay: a path of the machine that trained them."""
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
