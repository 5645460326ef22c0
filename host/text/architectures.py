"""Text encoders recognised by the keys and shapes of their weights, and the modules that hold them."""

from __future__ import annotations

from typing import Any

import torch

from ..layouts.state_dicts import StateDict, count_blocks, fill
from .clip_model import CLIPTextModel

CLIP_HEAD_SIZE = 64
BIGG_MIN_LAYERS = 31
"""CLIP-L has 12 layers, OpenCLIP's bigG 32."""


def clip_text_config(sd: StateDict, openclip: bool) -> dict[str, Any]:
    """Return configuration of `text_model.CLIPTextModel` for weights in Hugging Face's layout.

    Args:
        sd: the weights.
        openclip: whether OpenCLIP trained them, whose activation differs.
    """
    vocabulary, width = sd["text_model.embeddings.token_embedding.weight"].shape
    projection = sd.get("text_projection.weight")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "max_position_embeddings": sd["text_model.embeddings.position_embedding.weight"].shape[0],
        "num_hidden_layers": count_blocks(sd, "text_model.encoder.layers."),
        "num_attention_heads": max(1, width // CLIP_HEAD_SIZE),
        "intermediate_size": sd["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "hidden_act": "gelu" if openclip else "quick_gelu",
        "projection_dim": None if projection is None else projection.shape[0],
    }


def build_clip_text(sd: StateDict, dtype: torch.dtype, config: dict[str, Any]) -> torch.nn.Module:
    """Return a CLIP text encoder with these weights."""
    with torch.device("meta"):
        module = CLIPTextModel(config)
    return fill(module, sd, dtype, "the CLIP text encoder")


def t5_config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of transformers' `T5Config` for an encoder's weights."""
    block = "encoder.block.0.layer."
    vocabulary, width = sd["shared.weight"].shape
    buckets, heads = sd[f"{block}0.SelfAttention.relative_attention_bias.weight"].shape
    gated = f"{block}1.DenseReluDense.wi_0.weight" in sd
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": sd[f"{block}0.SelfAttention.q.weight"].shape[0] // heads,
        "d_ff": sd[f"{block}1.DenseReluDense.wo.weight"].shape[1],
        "num_layers": count_blocks(sd, "encoder.block."),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
    }


def build_t5(sd: StateDict, dtype: torch.dtype) -> torch.nn.Module:
    """Return transformers' `T5EncoderModel` with these weights."""
    from transformers import T5Config, T5EncoderModel

    if "shared.weight" not in sd and "encoder.embed_tokens.weight" in sd:
        sd = {**sd, "shared.weight": sd["encoder.embed_tokens.weight"]}
    with torch.device("meta"):
        module = T5EncoderModel(T5Config(**t5_config(sd)))
    module.encoder.set_input_embeddings(module.shared)
    return fill(module, {**sd, "encoder.embed_tokens.weight": sd["shared.weight"]}, dtype, "T5")
