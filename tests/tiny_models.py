"""Random models of a few thousand weights in every layout that loaders read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tessera.host.layouts.ldm_layout import flux_sources
from tessera.host.layouts.ldm_unet import unet_sources
from tessera.host.text.clip_tokens import CLIP_MERGES, clip_vocabulary, read_merges

StateDict = dict[str, torch.Tensor]

WIDTH = 64
VOCABULARY = 49408
UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 8,
}
SDXL_UNET = UNET | {
    "block_out_channels": [64, 128],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 3 * WIDTH,
    "attention_head_dim": [1, 2],
    "transformer_layers_per_block": [1, 2],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 6 * 256 + 2 * WIDTH,
}
VAE = {
    "block_out_channels": [32, 32, 32, 32],
    "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
}
FLUX = {
    "in_channels": 64,
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 128,
    "num_attention_heads": 1,
    "joint_attention_dim": 32,
    "pooled_projection_dim": WIDTH,
    "guidance_embeds": True,
    "axes_dims_rope": [16, 56, 56],
}


def text_config(width: int = WIDTH, activation: str = "quick_gelu", projection: int | None = None) -> dict[str, Any]:
    """A CLIP text encoder of three layers with heads of 64."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "max_position_embeddings": 77,
        "num_hidden_layers": 3,
        "num_attention_heads": width // 64,
        "intermediate_size": 2 * width,
        "hidden_act": activation,
        "projection_dim": projection,
    }


def random_weights(module: Any, seed: int = 0) -> StateDict:
    """Weights with a spread that keeps activations near one, also where modules begin with zeros."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for key, tensor in module.state_dict().items():
        if key.endswith("position_ids"):
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            out[key] = noise * (1.0 if "embedding" in key or key == "shared.weight" else tensor[0].numel() ** -0.5)
        else:
            out[key] = 0.1 * noise + key.endswith("weight")
    return out


def unet_weights(config: dict[str, Any]) -> StateDict:
    """Of diffusers' UNet."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return random_weights(UNet2DConditionModel.from_config(config))


def vae_weights(config: dict[str, Any] = VAE) -> StateDict:
    """Of diffusers' VAE."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return random_weights(AutoencoderKL.from_config(config), 1)


def flux_weights(seed: int = 2) -> StateDict:
    """Of diffusers' Flux transformer."""
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    return random_weights(FluxTransformer2DModel.from_config(FLUX), seed)


def text_weights(config: dict[str, Any], seed: int = 3) -> StateDict:
    """Of a CLIP text encoder, in Hugging Face's layout."""
    from tessera.host.text.clip_model import CLIPTextModel

    return random_weights(CLIPTextModel(config), seed)


def t5_weights(vocabulary: int = 40) -> StateDict:
    """Of T5's encoder, in Hugging Face's layout."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=vocabulary, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    weights = random_weights(T5EncoderModel(config), 4)
    weights.pop("encoder.embed_tokens.weight")
    return weights


def original_unet(weights: StateDict) -> StateDict:
    """In the layout of original checkpoints, without prefix."""
    return {source.key: weights[key] for key, source in unet_sources(weights).items()}


def original_flux(weights: StateDict) -> StateDict:
    """In the layout of original checkpoints, without prefix."""
    parts: dict[str, dict[int, torch.Tensor]] = {}
    for key, source in flux_sources(1, 2, guidance=True).items():
        tensor = torch.cat(weights[key].chunk(2)[::-1]) if source.swap else weights[key]
        parts.setdefault(source.key, {})[source.part] = tensor
    return {key: torch.cat([part for _, part in sorted(found.items())]) for key, found in parts.items()}


def original_vae(weights: StateDict) -> StateDict:
    """In the layout of original checkpoints, without prefix."""
    names = {
        "conv_norm_out": "norm_out",
        "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
        "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
        "mid_block.attentions.0.to_": "mid.attn_1.",
        "mid_block.resnets.0": "mid.block_1",
        "mid_block.resnets.1": "mid.block_2",
        "conv_shortcut": "nin_shortcut",
        ".downsamplers.0.": ".downsample.",
        ".upsamplers.0.": ".upsample.",
        ".resnets.": ".block.",
        "down_blocks.": "down.",
    } | {f"up_blocks.{i}.": f"up.{3 - i}." for i in range(4)}
    out = {}
    for key, tensor in weights.items():
        is_attention = ".to_" in key and key.endswith("weight")
        for new, old in names.items():
            key = key.replace(new, old)
        out[key] = tensor[:, :, None, None] if is_attention else tensor
    return out


def openclip_text(weights: StateDict) -> StateDict:
    """A text encoder in OpenCLIP's layout, without prefix."""
    out = {
        "token_embedding.weight": weights["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": weights["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": weights["text_model.final_layer_norm.weight"],
        "ln_final.bias": weights["text_model.final_layer_norm.bias"],
        "text_projection": weights["text_projection.weight"].T.contiguous(),
        "logit_scale": torch.tensor(4.6),
    }
    layers = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    for i in range(3):
        old, new = f"transformer.resblocks.{i}.", f"text_model.encoder.layers.{i}."
        for kind in ("weight", "bias"):
            for name, original in (layers | {"self_attn.out_proj": "attn.out_proj"}).items():
                out[f"{old}{original}.{kind}"] = weights[f"{new}{name}.{kind}"]
            qkv = [weights[f"{new}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            out[f"{old}attn.in_proj_{kind}"] = torch.cat(qkv)
    return out


def with_prefix(prefix: str, weights: StateDict) -> StateDict:
    """The same weights under a prefix."""
    return {prefix + key: tensor for key, tensor in weights.items()}


def save(path: Path, weights: StateDict) -> Path:
    """A safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous().clone() for key, tensor in weights.items()}, path)
    return path


def save_component(folder: Path, class_name: str, config: dict[str, Any], weights: StateDict, stem: str) -> None:
    """A part of a diffusers folder."""
    save(folder / f"{stem}.safetensors", weights)
    (folder / "config.json").write_text(json.dumps({"_class_name": class_name, **config}))


def save_clip_tokenizer(folder: Path, pad: str = "<|endoftext|>") -> None:
    """OpenAI's vocabulary as a diffusers folder has it."""
    folder.mkdir(parents=True)
    (folder / "merges.txt").write_text(CLIP_MERGES.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(clip_vocabulary(read_merges(CLIP_MERGES))))
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": pad}))


def save_t5_tokenizer(folder: Path) -> None:
    """A vocabulary of letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = ["<pad>", "</s>", "<unk>", *"\u2581abcdefghijklmnopqrstuvwxyz0123456789"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def save_folder(
    path: Path, denoiser: tuple[str, str, dict[str, Any], StateDict], scheduler: dict[str, Any] | None = None
) -> Path:
    """A diffusers folder without text encoders.

    Args:
        path: of the folder.
        denoiser: name of the part, class, configuration and weights.
        scheduler: its configuration.
    """
    name, class_name, config, weights = denoiser
    save_component(path / name, class_name, config, weights, "diffusion_pytorch_model")
    save_component(path / "vae", "AutoencoderKL", VAE, vae_weights(), "diffusion_pytorch_model")
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler or {}))
    (path / "model_index.json").write_text(json.dumps({"_class_name": "Pipeline"}))
    return path


def sd15_folder(path: Path) -> Path:
    """A whole SD 1.5 in diffusers' layout."""
    save_folder(path, ("unet", "UNet2DConditionModel", UNET, unet_weights(UNET)))
    save_component(path / "text_encoder", "CLIPTextModel", text_config(), text_weights(text_config()), "model")
    save_clip_tokenizer(path / "tokenizer")
    return path


def sd15_file(path: Path) -> Path:
    """The same weights in the original layout."""
    return save(
        path,
        with_prefix("model.diffusion_model.", original_unet(unet_weights(UNET)))
        | with_prefix("first_stage_model.", original_vae(vae_weights()))
        | with_prefix("cond_stage_model.transformer.", text_weights(text_config())),
    )


SDXL_SECOND = text_config(2 * WIDTH, "gelu", 2 * WIDTH)


def sdxl_folder(path: Path) -> Path:
    """A whole SDXL in diffusers' layout."""
    save_folder(path, ("unet", "UNet2DConditionModel", SDXL_UNET, unet_weights(SDXL_UNET)))
    save_component(path / "text_encoder", "CLIPTextModel", text_config(), text_weights(text_config()), "model")
    second = text_weights(SDXL_SECOND, 5)
    save_component(path / "text_encoder_2", "CLIPTextModelWithProjection", SDXL_SECOND, second, "model")
    save_clip_tokenizer(path / "tokenizer")
    save_clip_tokenizer(path / "tokenizer_2", pad="!")
    return path


def sdxl_file(path: Path) -> Path:
    """The same weights in the original layout."""
    return save(
        path,
        with_prefix("model.diffusion_model.", original_unet(unet_weights(SDXL_UNET)))
        | with_prefix("first_stage_model.", original_vae(vae_weights()))
        | with_prefix("conditioner.embedders.0.transformer.", text_weights(text_config()))
        | with_prefix("conditioner.embedders.1.model.", openclip_text(text_weights(SDXL_SECOND, 5))),
    )


def flux_folder(path: Path) -> Path:
    """A whole Flux.1 in diffusers' layout, but for the four channels of its VAE."""
    save_folder(path, ("transformer", "FluxTransformer2DModel", FLUX, flux_weights()))
    save_component(path / "text_encoder", "CLIPTextModel", text_config(), text_weights(text_config()), "model")
    save_component(path / "text_encoder_2", "T5EncoderModel", {}, t5_weights(), "model")
    save_clip_tokenizer(path / "tokenizer")
    save_t5_tokenizer(path / "tokenizer_2")
    return path


def flux_file(path: Path) -> Path:
    """The same weights in the layout that ComfyUI publishes, T5's tokenizer beside it."""
    save_t5_tokenizer(path.parent)
    return save(
        path,
        with_prefix("model.diffusion_model.", original_flux(flux_weights()))
        | with_prefix("vae.", original_vae(vae_weights()))
        | with_prefix("text_encoders.clip_l.transformer.", text_weights(text_config()))
        | with_prefix("text_encoders.t5xxl.transformer.", t5_weights()),
    )
