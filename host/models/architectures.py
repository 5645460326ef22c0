"""Architectures recognised by the keys and shapes of weights in diffusers' layout, and the modules that hold them.

Drop-in replacement for `comfy.model_detection`: what shapes do not say (the number of heads, activations) is the
family's constant.
"""

from __future__ import annotations

from typing import Any

import torch

from ..layouts.state_dicts import StateDict, count_blocks, fill, name_keys

UNET_CHANNELS = {4: "drawing", 8: "editing", 9: "inpainting"}
"""What UNets of so many channels do."""

SD15_HEADS = 8
"""Stable Diffusion 1 has 8 heads at every level; later families have heads of a fixed size."""

SDXL_HEAD_SIZE = 64
FLUX_HEAD_SIZE = 128
FLUX_ROPE_AXES = (16, 56, 56)
CLIP_HEAD_SIZE = 64
# ViT-L, -H and -bigG, the image encoders that are at least so wide, all have 16 heads.
VISION_WIDE, VISION_HEADS = 1024, 16
SDXL_SIZE_EMBEDDING = 256
"""Each of SDXL's six sizes is embedded in so many numbers."""

SDXL_CONTEXT = 2048
"""The text that networks of SDXL's kind without attention are given, though they do not read it."""

GROUPS = 32
VISION_GELU_LAYERS = 31
"""CLIP's ViT-L has fewer layers, OpenCLIP's ViT-bigG more."""


def unet_config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of `UNet2DConditionModel` for weights in its layout, whatever their depths.

    Raises:
        ValueError: it takes other channels than any model of the families.
    """
    channels = sd["conv_in.weight"].shape[1]
    if channels not in UNET_CHANNELS:
        known = ", ".join(f"{count} ({what})" for count, what in UNET_CHANNELS.items())
        raise ValueError(f"the UNet takes {channels} channels, expected one of {known}")
    levels = count_blocks(sd, "down_blocks.")
    up = [_depths(sd, f"up_blocks.{i}") for i in range(levels)]
    return {
        **encoder_config(sd),
        "out_channels": sd["conv_out.weight"].shape[0],
        "up_block_types": ["CrossAttnUpBlock2D" if depths else "UpBlock2D" for depths in up],
        "reverse_transformer_layers_per_block": [depths or 1 for depths in up],
        "mid_block_type": _middle(sd),
    }


def _depths(sd: StateDict, block: str) -> list[int]:
    """Return how many transformer layers each attention of a block has."""
    count = count_blocks(sd, f"{block}.attentions.")
    return [count_blocks(sd, f"{block}.attentions.{i}.transformer_blocks.") for i in range(count)]


def _middle(sd: StateDict) -> str | None:
    """Return the class of the middle, which pruned models lack in part or whole."""
    if count_blocks(sd, "mid_block.attentions."):
        return "UNetMidBlock2DCrossAttn"
    return "UNetMidBlock2D" if count_blocks(sd, "mid_block.resnets.") else None


def encoder_config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments that `UNet2DConditionModel` and `ControlNetModel` share: of the way down and the middle."""
    levels = count_blocks(sd, "down_blocks.")
    widths = [sd[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)]
    depths = [_depths(sd, f"down_blocks.{i}") for i in range(levels)]
    middle = count_blocks(sd, "mid_block.attentions.0.transformer_blocks.")
    sized = "add_embedding.linear_1.weight" in sd
    linear = next((sd[key].ndim == 2 for key in sd if key.endswith("proj_in.weight")), False)
    # The middle has the depth of the last level, which without attention has none of its own.
    per_level = [_alike(each) for each in depths[:-1]] + [middle or _alike(depths[-1])]
    config = {
        "in_channels": sd["conv_in.weight"].shape[1],
        "block_out_channels": widths,
        "layers_per_block": count_blocks(sd, "down_blocks.0.resnets."),
        "down_block_types": ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in depths],
        "transformer_layers_per_block": per_level,
        "cross_attention_dim": _context_width(sd),
        "use_linear_projection": linear,
        "attention_head_dim": [width // SDXL_HEAD_SIZE for width in widths] if sized or linear else SD15_HEADS,
        "norm_num_groups": GROUPS,
    }
    if sized:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": SDXL_SIZE_EMBEDDING,
            "projection_class_embeddings_input_dim": sd["add_embedding.linear_1.weight"].shape[1],
        }
    if "class_embedding.linear_1.weight" in sd:
        inputs = sd["class_embedding.linear_1.weight"].shape[1]
        config |= {"class_embed_type": "projection", "projection_class_embeddings_input_dim": inputs}
    return config


def _alike(depths: list[int]) -> int | list[int]:
    """Return one number for depths that are the same."""
    return depths or 1 if len(set(depths)) != 1 else depths[0]


def _context_width(sd: StateDict) -> int:
    return next((sd[key].shape[1] for key in sd if key.endswith("attn2.to_k.weight")), SDXL_CONTEXT)


def build_unet(sd: StateDict, dtype: torch.dtype, config: dict[str, Any] | None = None) -> torch.nn.Module:
    """Return a diffusers UNet with these weights; the config is derived from their shapes when not given."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        module = UNet2DConditionModel.from_config(config or unet_config(sd))
    return fill(module, sd, dtype, "the UNet")


def vae_config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of `AutoencoderKL` for weights in its layout.

    Raises:
        ValueError: the weights are no VAE of that kind.
    """
    levels = count_blocks(sd, "encoder.down_blocks.")
    if not levels or "decoder.conv_in.weight" not in sd:
        raise ValueError(f"the VAE's layout is not known; it has {name_keys(sd)}, expected an AutoencoderKL")
    return {
        "in_channels": sd["encoder.conv_in.weight"].shape[1],
        "out_channels": sd["decoder.conv_out.weight"].shape[0],
        "latent_channels": sd["decoder.conv_in.weight"].shape[1],
        "block_out_channels": [sd[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)],
        "layers_per_block": count_blocks(sd, "encoder.down_blocks.0.resnets."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "norm_num_groups": GROUPS,
        "use_quant_conv": "quant_conv.weight" in sd,
        "use_post_quant_conv": "post_quant_conv.weight" in sd,
        "mid_block_add_attention": "encoder.mid_block.attentions.0.to_q.weight" in sd,
    }


def build_vae(sd: StateDict, dtype: torch.dtype, config: dict[str, Any] | None = None) -> torch.nn.Module:
    """Return a diffusers `AutoencoderKL` with these weights."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.device("meta"):
        module = AutoencoderKL.from_config(config or vae_config(sd))
    return fill(module, sd, dtype, "the VAE")


def flux_config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of `FluxTransformer2DModel` for weights in its layout.

    Raises:
        ValueError: its hidden size is not a multiple of Flux's head size.
    """
    return {**flux_layers(sd), "out_channels": sd["proj_out.weight"].shape[0]}


def flux_layers(sd: StateDict) -> dict[str, Any]:
    """Return the arguments that `FluxTransformer2DModel` and `FluxControlNetModel` share.

    Raises:
        ValueError: the hidden size is not a multiple of Flux's head size.
    """
    hidden, channels = sd["x_embedder.weight"].shape
    if hidden % FLUX_HEAD_SIZE:
        raise ValueError(f"the transformer is {hidden} wide, expected a multiple of {FLUX_HEAD_SIZE} as in Flux.1")
    return {
        "in_channels": channels,
        "patch_size": 1,
        "num_layers": count_blocks(sd, "transformer_blocks."),
        "num_single_layers": count_blocks(sd, "single_transformer_blocks."),
        "attention_head_dim": FLUX_HEAD_SIZE,
        "num_attention_heads": hidden // FLUX_HEAD_SIZE,
        "joint_attention_dim": sd["context_embedder.weight"].shape[1],
        "pooled_projection_dim": sd["time_text_embed.text_embedder.linear_1.weight"].shape[1],
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in sd,
        "axes_dims_rope": list(FLUX_ROPE_AXES),
    }


def build_flux(sd: StateDict, dtype: torch.dtype, config: dict[str, Any] | None = None) -> torch.nn.Module:
    """Return a diffusers `FluxTransformer2DModel` with these weights."""
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    with torch.device("meta"):
        module = FluxTransformer2DModel.from_config(config or flux_config(sd))
    return fill(module, sd, dtype, "the Flux transformer")


def clip_vision_config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of transformers' `CLIPVisionConfig` for weights in its layout."""
    width, _, patch, _ = sd["vision_model.embeddings.patch_embedding.weight"].shape
    tokens = sd["vision_model.embeddings.position_embedding.weight"].shape[0]
    layers = count_blocks(sd, "vision_model.encoder.layers.")
    return {
        "hidden_size": width,
        "intermediate_size": sd["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": VISION_HEADS if width >= VISION_WIDE else max(1, width // CLIP_HEAD_SIZE),
        "image_size": round((tokens - 1) ** 0.5) * patch,
        "patch_size": patch,
        "hidden_act": "gelu" if layers >= VISION_GELU_LAYERS else "quick_gelu",
        "projection_dim": sd["visual_projection.weight"].shape[0],
    }


def build_clip_vision(sd: StateDict, dtype: torch.dtype, config: dict[str, Any] | None = None) -> torch.nn.Module:
    """Return transformers' `CLIPVisionModelWithProjection` with these weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"):
        module = CLIPVisionModelWithProjection(CLIPVisionConfig(**(config or clip_vision_config(sd))))
    return fill(module, sd, dtype, "the image encoder")


def siglip_config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of transformers' `SiglipVisionConfig` for weights in its layout."""
    width, _, patch, _ = sd["vision_model.embeddings.patch_embedding.weight"].shape
    tokens = sd["vision_model.embeddings.position_embedding.weight"].shape[0]
    return {
        "hidden_size": width,
        "intermediate_size": sd["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": count_blocks(sd, "vision_model.encoder.layers."),
        "num_attention_heads": VISION_HEADS if width >= VISION_WIDE else max(1, width // CLIP_HEAD_SIZE),
        "image_size": round(tokens**0.5) * patch,
        "patch_size": patch,
    }


class SiglipEncoder(torch.nn.Module):
    """Transformers' `SiglipVisionModel` without its pooling head, as ComfyUI has it."""

    def __init__(self, config: dict[str, Any]) -> None:
        from transformers import SiglipVisionConfig, SiglipVisionModel

        super().__init__()
        model = SiglipVisionModel(SiglipVisionConfig(**config, vision_use_head=False))
        self.vision_model: Any = getattr(model, "vision_model", model)
        self.config: Any = model.config

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool) -> Any:
        """Encode pixel_values (B, 3, H, W) as CLIP's does, with all normed patches (B, P, D) as `image_embeds`."""
        out = self.vision_model(pixel_values=pixel_values, output_hidden_states=output_hidden_states)
        out["image_embeds"] = out.last_hidden_state
        return out


def build_siglip(sd: StateDict, dtype: torch.dtype) -> torch.nn.Module:
    """Return SigLIP's image encoder with these weights."""
    with torch.device("meta"):
        module = SiglipEncoder(siglip_config(sd))
    return fill(module, sd, dtype, "the image encoder")
