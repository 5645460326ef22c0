"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layouts.ldm_layout import Source
from ...layouts.sd3_layout import convert_sd3, sd3_sources
from ...layouts.state_dicts import StateDict, count_blocks, fill
from ...text.clip import CLIP
from ...text.encoders import PENULTIMATE, Chunks, CLIPTextEncoder, T5TextEncoder
from ...text.loading import TextWeights, clip_encoder, clip_tokenizer, t5_encoder
from ...text.tokenizer import MultiTokenizer, PromptTokenizer
from .. import latent_formats
from ..block_hooks import REPLACED, hooked_blocks
from ..model_base import ModelType
from ..transformer_base import TransformerModel, empty_module
from .base import Family, Sampling, TextKind, TextSource

HEAD_SIZE = 64
PATCH = 2
SHIFT = {"shift": 3.0}
WIDTHS = {"clip_l": 768, "clip_g": 1280, "t5xxl": 4096}
"""What stands in the place of an encoder that is missing: zeros as wide as its embeddings."""

T5_TOKENS = CLIP_TOKENS = 77
"""Prompts are padded to as many tokens for T5, too."""


class SD3Latents(latent_formats.LatentFormat):
    """Stable Diffusion 3."""

    scale_factor = 1.5305
    shift_factor = 0.0609
    latent_channels = 16


class SD3(TransformerModel):
    """A diffusers SD3Transformer2DModel."""

    default_latent_format = SD3Latents
    replaced = frozenset({REPLACED})

    def forward_transformer(
        self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None, **conds: Any
    ) -> Tensor:
        """Call the transformer once: x (B, C, H, W), timestep 0..1000 (B,), context (B, L, D) -> (B, C, H, W)."""
        config: Any = self.diffusion_model.config
        pooled = x.new_zeros(len(x), config.pooled_projection_dim) if y is None else y
        with hooked_blocks(self.diffusion_model, conds.get("transformer_options") or {}, x):
            return self.diffusion_model(x, context, pooled, timestep, return_dict=False)[0]


class SD3TextModel(nn.Module):
    """The layers before the last of CLIP-L and CLIP-G side by side, then T5's; any of the three may be missing."""

    def __init__(self, clips: dict[str, CLIPTextEncoder], t5xxl: T5TextEncoder | None) -> None:
        super().__init__()
        self.clip_l, self.clip_g, self.t5xxl = clips.get("clip_l"), clips.get("clip_g"), t5xxl
        for encoder in clips.values():
            encoder.layer, encoder.norm_layer = PENULTIMATE, False
        if self.clip_l is not None:
            self.clip_l.projected = False

    def encode_token_weights(
        self, tokens: dict[str, Chunks], layer: int | None, projected: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return text embedding (1, L, D) and pooled text (1, P)."""
        hidden, pooled = [], []
        for encoder, key in ((self.clip_l, "l"), (self.clip_g, "g")):
            width = WIDTHS[f"clip_{key}"]
            if encoder is not None and tokens.get(key):
                states, summary = encoder.encode_token_weights(tokens[key], layer, projected)
                assert summary is not None
            else:
                states, summary = torch.zeros(1, 0, width), torch.zeros(1, width)
            hidden.append(states)
            pooled.append(summary)
        parts = [_side_by_side(hidden)]
        if self.t5xxl is not None:
            parts.append(self.t5xxl.encode_token_weights(tokens["t5xxl"], layer, projected)[0])
        width = parts[-1].shape[-1] if self.t5xxl is not None else WIDTHS["t5xxl"]
        told = [F.pad(part, (0, width - part.shape[-1])) for part in parts if part.shape[1]]
        text = torch.cat(told, 1) if told else torch.zeros(1, CLIP_TOKENS, width)
        return text, torch.cat(pooled, -1)


def _side_by_side(hidden: list[Tensor]) -> Tensor:
    """Return embeddings (1, L, D) of two encoders, cut to the shorter; zeros where one is missing."""
    lengths = [states.shape[1] for states in hidden if states.shape[1]]
    length = min(lengths, default=0)
    return torch.cat([F.pad(s[:, :length], (0, 0, 0, length - min(length, s.shape[1]))) for s in hidden], -1)


def _detect(sd: StateDict) -> bool:
    return "pos_embed.pos_embed" in sd and "transformer_blocks.0.attn.add_q_proj.weight" in sd


def config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of `SD3Transformer2DModel` for weights in its layout."""
    width, channels = sd["pos_embed.proj.weight"].shape[:2]
    return {
        "patch_size": PATCH,
        "in_channels": channels,
        "out_channels": sd["proj_out.weight"].shape[0] // PATCH**2,
        "num_layers": count_blocks(sd, "transformer_blocks."),
        "attention_head_dim": HEAD_SIZE,
        "num_attention_heads": width // HEAD_SIZE,
        "joint_attention_dim": sd["context_embedder.weight"].shape[1],
        "caption_projection_dim": sd["context_embedder.weight"].shape[0],
        "pooled_projection_dim": sd["time_text_embed.text_embedder.linear_1.weight"].shape[1],
        "pos_embed_max_size": math.isqrt(sd["pos_embed.pos_embed"].shape[1]),
        "dual_attention_layers": tuple(sorted(_dual(set(sd)))),
        "qk_norm": "rms_norm" if "transformer_blocks.0.attn.norm_q.weight" in sd else None,
    }


def _dual(keys: set[str]) -> set[int]:
    return {int(key.split(".")[1]) for key in keys if ".attn2.to_q." in key}


def _build(sd: StateDict, dtype: torch.dtype, given: dict[str, Any] | None) -> torch.nn.Module:
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    module = empty_module(SD3Transformer2DModel, given or config(sd))
    return fill(module, sd, dtype, "the transformer")


def _sampling(sd: StateDict) -> Sampling:
    return ModelType.FLOW, SHIFT


def _text(parts: dict[str, TextWeights], source: TextSource) -> CLIP:
    tokenizers: dict[str, PromptTokenizer] = {}
    clips: dict[str, CLIPTextEncoder] = {}
    for role in ("clip_l", "clip_g"):
        if role in parts:
            parts[role].openclip = role == "clip_g"
            tokenizer = source.tokenizers.get(role) or clip_tokenizer(parts[role], role, source.directories)
            clips[role] = clip_encoder(parts[role], tokenizer)
            tokenizers[role[-1]] = tokenizer
    t5 = None
    if "t5xxl" in parts:
        folder = source.tokenizer_folder("t5xxl")
        t5, tokenizers["t5xxl"] = t5_encoder(parts["t5xxl"], folder, source.directories, T5_TOKENS)
    return CLIP(SD3TextModel(clips, t5), MultiTokenizer(**tokenizers))


def _lora_sources(keys: set[str]) -> dict[str, Source]:
    blocks = {key.split(".")[1] for key in keys if key.startswith("transformer_blocks.")}
    return sd3_sources(len(blocks), _dual(keys), "transformer_blocks.0.attn.norm_q.weight" in keys)


FAMILY = Family(
    name="Stable Diffusion 3",
    model=SD3,
    detect=_detect,
    diffusers_class="SD3Transformer2DModel",
    folder="transformer",
    build=_build,
    originals={"joint_blocks.0.context_block.attn.qkv.weight": convert_sd3},
    text=TextKind(("clip_l", "clip_g", "t5xxl"), ("sd3",), _text, optional=("clip_l", "clip_g", "t5xxl")),
    sampling=_sampling,
    lora_sources=_lora_sources,
    lora_prefix="transformer.",
    wide_range=True,
    file_names=r"sd-?3|stable-diffusion-3",
)
