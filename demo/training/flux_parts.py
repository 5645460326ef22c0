"""The shapes of `texture-flux` and its diffusers folder.

ComfyUI's own Flux module can hold the transformer: heads of 128 with rotary axes 16, 56 and 56. CLIP's
tokenizer is that of `texture-sd`; T5 has a small vocabulary of its own.
"""

# diffusers declares its classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from .captions import vocabulary
from .parts import forget_origins, new_tokenizer
from .pieces import vocabulary_size, write_t5_tokenizer
from .tokens import LENGTH as CLIP_LENGTH
from .tokens import write_tokenizer

CHANNELS = 16
"""Latent channels, four times as many in a token of 2x2 latents."""

SCALING, SHIFT = 0.3611, 0.1159
"""Flux.1's latent scale and shift. The VAE is folded: (latents - SHIFT) * SCALING have mean 0 and deviation 1."""

TEXT_WIDTH, POOLED_WIDTH = 128, 128


def new_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(64, 64, 64, 64),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=32,
        sample_size=128,
        scaling_factor=SCALING,
        shift_factor=SHIFT,
    )


def new_transformer() -> FluxTransformer2DModel:
    """Two double and two single blocks of width 256, with an embedded guidance.

    Modulations and the last layer begin at zero, so that every block begins as the identity (Peebles and Xie 2022).
    """
    transformer = FluxTransformer2DModel(
        in_channels=4 * CHANNELS,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=128,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(16, 56, 56),
    )
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    norms = [getattr(block, n) for block in blocks for n in ("norm", "norm1", "norm1_context") if hasattr(block, n)]
    for layer in (*(norm.linear for norm in norms), transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return transformer


def new_clip(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two layers of width 128."""
    start, end = (tokenizer.convert_tokens_to_ids(mark) for mark in (tokenizer.bos_token, tokenizer.eos_token))
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=POOLED_WIDTH,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CLIP_LENGTH,
            projection_dim=POOLED_WIDTH,
            hidden_act="quick_gelu",
            bos_token_id=start,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def new_t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary_size(),
            d_model=TEXT_WIDTH,
            d_kv=32,
            num_heads=4,
            d_ff=256,
            num_layers=2,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )


class Prompts:
    """Texts to context and pooled text, with both tokenizers, whose files are written into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.clip = new_tokenizer(folder / "clip")
        write_t5_tokenizer(folder / "t5")
        self.t5 = T5TokenizerFast.from_pretrained(folder / "t5")

    def __call__(self, clip: CLIPTextModel, t5: T5EncoderModel, texts: list[str]) -> tuple[Tensor, Tensor]:
        """(B, LENGTH, TEXT_WIDTH) and (B, POOLED_WIDTH), without attention masks, as in Flux.1."""
        some: dict[str, Any] = {"truncation": True, "return_tensors": "pt"}
        ids = self.t5(texts, padding="max_length", **some).input_ids
        context = t5(ids.to(t5.device)).last_hidden_state
        seen = self.clip(texts, padding="longest", **some).input_ids  # causal: what follows the end changes nothing
        return context, clip(seen.to(clip.device)).pooler_output


def patchify(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (B, N, 64) of latents (B, 16, h, w) and their positions (N, 3), as in Flux.1."""
    b, c, h, w = latents.shape
    tokens = latents.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)
    rows, columns = torch.meshgrid(torch.arange(h // 2), torch.arange(w // 2), indexing="ij")
    ids = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3)
    return tokens, ids.to(latents)


def save_pipeline(
    folder: Path,
    vae: AutoencoderKL,
    transformer: FluxTransformer2DModel,
    clip: CLIPTextModel,
    t5: T5EncoderModel,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a diffusers folder of FluxPipeline; the modules given are converted to `dtype`."""
    modules: tuple[nn.Module, ...] = (vae, clip, t5, transformer)
    for module in modules:
        module.to(dtype)
    write_t5_tokenizer(folder / "tokenizer_2")
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=round(math.exp(1.15), 3)),  # ComfyUI's shift of 1.15
        vae=vae,
        text_encoder=clip,
        tokenizer=new_tokenizer(folder / "tokenizer"),
        text_encoder_2=t5,
        tokenizer_2=T5TokenizerFast.from_pretrained(folder / "tokenizer_2"),
        transformer=transformer,
    )
    pipeline.save_pretrained(folder)
    forget_origins(folder)
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)  # vocab.json and merges.txt say the same
    write_tokenizer(folder / "tokenizer", vocabulary())
    write_t5_tokenizer(folder / "tokenizer_2")
