"""Architectures recognised by the keys and shapes of weights in diffusers' layout, and the modules that hold them.

Drop-in replacement for `comfy.model_detection`: what shapes do not say (the number of heads, activations) is the
family's constant.
"""

from __future__ import annotations

from typing import Any

import torch

from ..layouts.state_dicts import StateDict, count_blocks, fill, name_keys

SD15_HEADS = 8
"""Stable Diffusion 1 has 8 heads at every level; SDXL and Flux have heads of a fixed size."""

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
    """Return the arguments of `UNet2DConditionModel` for weights in its layout.

    Raises:
        ValueError: the weights are no UNet of Stable Diffusion 1 or XL.
    """
    check_unet(sd)
    levels = count_blocks(sd, "down_blocks.")
    up = [count_blocks(sd, f"up_blocks.{i}.attentions.0.transformer_blocks.") for i in range(levels)]
    return {
        **encoder_config(sd),
        "out_channels": sd["conv_out.weight"].shape[0],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in up],
    }


def encoder_config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments that `UNet2DConditionModel` and `ControlNetModel` share: of the way down and the middle."""
    levels = count_blocks(sd, "down_blocks.")
    widths = [sd[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)]
    depths = [count_blocks(sd, f"down_blocks.{i}.attentions.0.transformer_blocks.") for i in range(levels)]
    middle = count_blocks(sd, "mid_block.attentions.0.transformer_blocks.")
    sized = "add_embedding.linear_1.weight" in sd
    config = {
        "in_channels": sd["conv_in.weight"].shape[1],
        "block_out_channels": widths,
        "layers_per_block": count_blocks(sd, "down_blocks.0.resnets."),
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        # The middle has the depth of the last level, which without attention has none of its own.
        "transformer_layers_per_block": [depth or 1 for depth in depths[:-1]] + [middle or 1],
        "cross_attention_dim": _context_width(sd),
        "use_linear_projection": next((sd[key].ndim == 2 for key in sd if key.endswith("proj_in.weight")), False),
        "attention_head_dim": [width // SDXL_HEAD_SIZE for width in widths] if sized else SD15_HEADS,
        "norm_num_groups": GROUPS,
    }
    if sized:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": SDXL_SIZE_EMBEDDING,
            "projection_class_embeddings_input_dim": sd["add_embedding.linear_1.weight"].shape[1],
        }
    return config


def _context_width(sd: StateDict) -> int:
    return next((sd[key].shape[1] for key in sd if key.endswith("attn2.to_k.weight")), SDXL_CONTEXT)


def check_unet(sd: StateDict) -> None:
    """Refuse UNets of other families."""
    channels = sd["conv_in.weight"].shape[1]
    if not count_blocks(sd, "mid_block.attentions.0.transformer_blocks."):
        raise ValueError("the UNet has no attention in its middle, which no Stable Diffusion 1 or XL has")
    if channels != 4:
        raise ValueError(
            f"the UNet takes {channels} channels, expected 4; inpainting and edit models are not supported"
        )
    if sd["mid_block.attentions.0.proj_in.weight"].ndim == 2 and "add_embedding.linear_1.weight" not in sd:
        raise ValueError(
            f"the UNet has linear projections, a context of {_context_width(sd)} and no size embedding, which is "
            "Stable Diffusion 2; expected Stable Diffusion 1.5, SDXL or Flux.1"
        )


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
        ValueError: it takes more than latents, or its hidden size is not a multiple of Flux's head size.
    """
    channels = sd["x_embedder.weight"].shape[1]
    if channels != 64:
        raise ValueError(
            f"the transformer takes {channels} channels, expected 64; Fill, Depth and Canny are not supported"
        )
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
