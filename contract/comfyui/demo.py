# pyright: reportMissingImports=false
"""The demo checkpoint as ComfyUI's own objects: its UNet, CLIP and VAE classes hold the weights of a diffusers folder.

The shapes of the demo model were chosen so that ComfyUI's modules take every weight.
"""

from __future__ import annotations

import json
from collections.abc import Set
from functools import partial
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.diffusers_convert
import comfy.model_base
import comfy.model_management as devices
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer
from comfy.supported_models_base import ClipTarget

from ...weights.files import read_spread, shards
from ..protocols import CLIP, MODEL, VAE, Loaded
from . import flux_demo as flux

Config = dict[str, Any]
Weights = dict[str, torch.Tensor]


def load(folder: Path) -> Loaded:
    """Load a diffusers folder of the Stable Diffusion 1 or the Flux.1 kind as MODEL, CLIP and VAE.

    Raises:
        RuntimeError: a weight is missing, or has no place.
    """
    vae_config = _config(folder / "vae" / "config.json")
    if (folder / "transformer").is_dir():
        return flux.load_model(folder), flux.load_clip(folder, _TextEncoder), load_vae(folder, vae_config)
    return (
        load_model(folder, vae_config["scaling_factor"]),
        load_clip(folder),
        load_vae(folder, vae_config),
    )


def load_model(folder: Path, latent_scale: float) -> MODEL:
    """Build the denoiser as a `comfy.model_patcher.ModelPatcher`."""
    schedule = _config(folder / "scheduler" / "scheduler_config.json")
    weights = comfy.utils.load_torch_file(str(folder / "unet" / "diffusion_pytorch_model.safetensors"), safe_load=True)
    config = comfy.supported_models.SD15(unet_config(_config(folder / "unet" / "config.json")))
    config.unet_config["num_heads"] = _heads(_config(folder / "unet" / "config.json"))
    config.latent_format.scale_factor = latent_scale
    config.sampling_settings = sampling_settings(schedule)
    dtype = devices.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    device = devices.get_torch_device()
    config.set_inference_dtype(dtype, devices.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model_type = comfy.model_base.ModelType[_MODEL_TYPES[schedule["prediction_type"]]]
    model = comfy.model_base.BaseModel(config, model_type=model_type, device=devices.unet_offload_device())
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    model.diffusion_model.load_state_dict({names[key]: weight for key, weight in weights.items()})
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=devices.unet_offload_device())


_MODEL_TYPES = {"epsilon": "EPS", "v_prediction": "V_PREDICTION"}


def unet_config(config: Config) -> Config:
    """Translate the configuration of a `UNet2DConditionModel` into that of ComfyUI's `UNetModel`."""
    channels: list[int] = config["block_out_channels"]
    layers: int = config["layers_per_block"]
    attended = ["CrossAttn" in kind for kind in config["down_block_types"]]
    return {
        "image_size": 32,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": channels[0],
        "channel_mult": [width // channels[0] for width in channels],
        "num_res_blocks": [layers] * len(channels),
        "transformer_depth": [int(level) for level in attended for _ in range(layers)],
        "transformer_depth_output": [int(level) for level in attended for _ in range(layers + 1)],
        "transformer_depth_middle": 1,
        "context_dim": config["cross_attention_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "use_temporal_attention": False,
        "adm_in_channels": None,
        "legacy": False,
    }


def _heads(config: Config) -> int:
    return config.get("num_attention_heads") or config["attention_head_dim"]


def sampling_settings(schedule: Config) -> Config:
    """Translate a diffusers scheduler configuration into what ComfyUI's `ModelSamplingDiscrete` reads."""
    return {
        "beta_schedule": _BETA_SCHEDULES[schedule["beta_schedule"]],
        "linear_start": schedule["beta_start"],
        "linear_end": schedule["beta_end"],
        "timesteps": schedule["num_train_timesteps"],
        "zsnr": schedule.get("rescale_betas_zero_snr", False),
    }


_BETA_SCHEDULES = {"scaled_linear": "linear", "linear": "sqrt_linear"}


def load_clip(folder: Path) -> CLIP:
    """Build text encoder and tokenizer as a `comfy.sd.CLIP`."""
    config = _config(folder / "text_encoder" / "config.json")
    weights = comfy.utils.load_torch_file(str(folder / "text_encoder" / "model.safetensors"), safe_load=True)
    target = ClipTarget(
        partial(
            SD1Tokenizer,
            tokenizer=partial(
                SDTokenizer,
                tokenizer_path=str(folder / "tokenizer"),
                max_length=config["max_position_embeddings"],
                embedding_size=config["hidden_size"],
            ),
        ),
        partial(SD1ClipModel, clip_model=partial(_TextEncoder, textmodel_json_config=config)),
    )
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=comfy.utils.calculate_parameters(weights),
    )
    missing, unplaced = clip.load_sd({f"text_model.{key.removeprefix('text_model.')}": weights[key] for key in weights})
    _demand_complete("text encoder", set(missing) - {"text_projection.weight"}, set(unplaced))
    return clip


class _TextEncoder(SDClipModel):
    """ComfyUI's CLIP text encoder with a vocabulary of its own size; ComfyUI's class knows one size."""

    def __init__(self, device: Any, dtype: Any, model_options: Config, textmodel_json_config: Config) -> None:
        config = textmodel_json_config
        super().__init__(
            device=device,
            dtype=dtype,
            model_options=model_options,
            textmodel_json_config=config,
            max_length=config["max_position_embeddings"],
            special_tokens={
                "start": config["bos_token_id"],
                "end": config["eos_token_id"],
                "pad": config["eos_token_id"],
            },
            return_projected_pooled=False,
        )
        self.transformer.set_input_embeddings(
            comfy.ops.manual_cast.Embedding(config["vocab_size"], config["hidden_size"], dtype=dtype, device=device)
        )


def load_vae(folder: Path, config: Config) -> VAE:
    """Build the autoencoder as a `comfy.sd.VAE`."""
    weights = comfy.utils.load_torch_file(str(folder / "vae" / "diffusion_pytorch_model.safetensors"), safe_load=True)
    weights = comfy.diffusers_convert.convert_vae_state_dict(weights)
    vae = comfy.sd.VAE(sd=weights, config={"params": vae_params(config)})
    places = vae.first_stage_model.state_dict().keys()
    _demand_complete("VAE", places - weights.keys(), weights.keys() - places)
    return vae


def vae_params(config: Config) -> Config:
    """Translate the configuration of an `AutoencoderKL` into the parameters of ComfyUI's."""
    channels: list[int] = config["block_out_channels"]
    return {
        "ddconfig": {
            "double_z": True,
            "z_channels": config["latent_channels"],
            "resolution": config["sample_size"],
            "in_channels": config["in_channels"],
            "out_ch": config["out_channels"],
            "ch": channels[0],
            "ch_mult": [width // channels[0] for width in channels],
            "num_res_blocks": config["layers_per_block"],
            "attn_resolutions": [],
            "dropout": 0.0,
        },
        "embed_dim": config["latent_channels"],
    }


def load_image_encoder(path: Path) -> Any:
    """Load a `comfy.clip_vision.ClipVisionModel` from a file, or from a folder that says its own shape.

    Raises:
        ValueError: the file holds no image encoder.
        RuntimeError: a weight of the folder's is missing, or has no place.
    """
    if not path.is_dir():
        spread = len(shards(path)) > 1
        encoder = _spread_encoder(path) if spread else comfy.clip_vision.load(str(path))
        if encoder is None:
            raise ValueError(f"{path.name} holds no image encoder; put CLIP's image encoders into models/clip_vision.")
        return encoder
    encoder = comfy.clip_vision.ClipVisionModel(str(path / "config.json"))
    weights = comfy.utils.load_torch_file(str(path / "model.safetensors"), safe_load=True)
    missing, unplaced = encoder.load_sd(weights)
    _demand_complete("image encoder", set(missing), {key for key in unplaced if not key.endswith("position_ids")})
    return encoder


def _spread_encoder(path: Path) -> Any:
    """Load an image encoder that is spread over several files."""
    weights = read_spread(path)
    openclip = "visual.transformer.resblocks.0.attn.in_proj_weight" in weights
    return comfy.clip_vision.load_clipvision_from_sd(weights, "visual." if openclip else "", openclip)


def _demand_complete(part: str, missing: Set[str], unplaced: Set[str]) -> None:
    if missing or unplaced:
        raise RuntimeError(
            f"The demo model's {part} does not fit: {len(missing)} weights missing, {len(unplaced)} without a place "
            f"({', '.join([*missing, *unplaced][:3])}); install the pack again."
        )


def _config(path: Path) -> Config:
    return json.loads(path.read_text(encoding="utf-8"))
