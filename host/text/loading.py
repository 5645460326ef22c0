"""Text encoders of a family put together from weights, configurations and tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..layouts.ldm_layout import convert_openclip
from ..layouts.quantized import dequantized
from ..layouts.state_dicts import StateDict, count_blocks, name_keys, read_json, with_prefix
from ..runtime import devices
from .architectures import BIGG_MIN_LAYERS, build_clip_text, build_t5, clip_text_config
from .clip import CLIP
from .clip_tokens import load_t5_tokenizer
from .encoders import (
    CLIPTextEncoder,
    FluxTextModel,
    OneCLIPTextModel,
    SD1TextModel,
    SDXLTextModel,
    T5TextEncoder,
)
from .language_models import (
    ChatTokenizer,
    LanguageModelEncoder,
    LanguageTextModel,
    build_mistral,
    build_qwen3,
    is_mistral,
    is_qwen2,
    is_qwen3,
    load_chat_tokenizer,
    without_head,
)
from .tekken import KEY as TEKKEN
from .tokenizer import T5_MIN_LENGTH, MultiTokenizer, PromptTokenizer, clip_prompt_tokenizer, t5_prompt_tokenizer
from .vision import VISUAL

CLIP_PROBE = "text_model.encoder.layers.0.mlp.fc1.weight"
CLIP_H_WIDTH, CLIP_G_WIDTH = 1024, 1280
QWEN3_SIZES = {2560: "4b", 4096: "8b"}
"""By width."""

KNOWN = "CLIP, T5, Qwen2.5-VL, Qwen3 or Mistral Small 3"
MISTRAL = "mistral3_24b"
T5_PROBE = "encoder.block.0.layer.0.SelfAttention.q.weight"


@dataclass
class TextWeights:
    """Weights of one text encoder in Hugging Face's layout.

    `openclip`: who trained it; says activation and padding. `config`: of its folder, else derived from shapes.
    `tekken`: the bytes of its tokenizer.
    """

    weights: StateDict
    openclip: bool = False
    config: dict[str, Any] | None = None
    tekken: torch.Tensor | None = None

    @property
    def is_t5(self) -> bool:
        """Whether it is T5's encoder."""
        return T5_PROBE in self.weights

    @property
    def is_qwen3(self) -> bool:
        """Whether it is the language model Qwen3."""
        return is_qwen3(self.weights)

    @property
    def is_qwen2(self) -> bool:
        """Whether it is the language model of Qwen2.5-VL."""
        return is_qwen2(self.weights)

    @property
    def is_mistral(self) -> bool:
        """Whether it is the language model Mistral Small 3."""
        return self.tekken is not None or is_mistral(self.weights)

    @property
    def kind(self) -> str:
        """What it is: the beginning of its role in a family."""
        if self.is_t5:
            return "t5"
        if self.is_qwen2:
            return "qwen25"
        if self.is_mistral:
            return MISTRAL
        if self.is_qwen3:
            return f"qwen3_{QWEN3_SIZES.get(self.width, '4b')}"
        return {CLIP_H_WIDTH: "clip_h", CLIP_G_WIDTH: "clip_g"}.get(self.width, "clip")

    @property
    def size(self) -> int:
        """Of its embeddings, by which encoders of one kind are ordered."""
        return 0 if self.is_t5 else self.width

    def __str__(self) -> str:
        if self.is_t5:
            return "T5"
        names = {"Qwen3": self.is_qwen3, "Qwen2.5": self.is_qwen2, "Mistral": self.is_mistral}
        return f"{next((name for name, found in names.items() if found), 'CLIP')} of width {self.width}"

    @property
    def width(self) -> int:
        """Of its embeddings, for CLIP and language models."""
        keys = ("embed_tokens.weight", "text_model.embeddings.token_embedding.weight")
        return next(self.weights[key].shape[1] for key in keys if key in self.weights)

    def full_config(self) -> dict[str, Any]:
        """Return what the module is built from: what shapes say, and what the folder says beyond that."""
        derived = clip_text_config(self.weights, self.openclip)
        named = ("num_attention_heads", "hidden_act", "layer_norm_eps")
        return derived | {key: self.config[key] for key in named if self.config and key in self.config}


def read_text_weights(sd: StateDict, config: dict[str, Any] | None = None) -> TextWeights:
    """Recognise a text encoder.

    Raises:
        ValueError: it is not one that a family here reads.
    """
    sd = dequantized(sd, devices.text_encoder_dtype(wide_range=True))
    if "transformer.resblocks.0.ln_1.weight" in sd:
        return TextWeights(convert_openclip(sd), openclip=True)
    if is_mistral(sd):
        return TextWeights(without_head(sd), config=config, tekken=sd.get(TEKKEN))
    if is_qwen3(sd) or is_qwen2(sd):
        eyes = {key.removeprefix("model."): tensor for key, tensor in sd.items()}
        eyes = {key: tensor for key, tensor in eyes.items() if key.startswith(VISUAL)}
        return TextWeights(without_head(sd) | eyes, config=config)
    if T5_PROBE in sd:
        kept = {k: t for k, t in sd.items() if k.startswith("encoder.") or k == "shared.weight"}
        return TextWeights(kept, config=config)
    if "encoder.layers.0.mlp.fc1.weight" in sd:
        projection = {key: sd[key] for key in sd if key == "text_projection.weight"}
        sd = {f"text_model.{key}": t for key, t in sd.items() if key not in projection} | projection
    if CLIP_PROBE not in sd:
        raise ValueError(f"no text encoder that is known: it has {name_keys(sd)}, expected {KNOWN}")
    is_openclip = count_blocks(sd, "text_model.encoder.layers.") >= BIGG_MIN_LAYERS
    kept = with_prefix({f"/{k}": t for k, t in sd.items() if k.startswith(("text_model.", "text_projection."))}, "/")
    return TextWeights(kept, is_openclip, config)


def clip_encoder(text: TextWeights, tokenizer: PromptTokenizer) -> CLIPTextEncoder:
    """Return CLIP's text encoder of weights."""
    module = build_clip_text(text.weights, devices.text_encoder_dtype(), text.full_config())
    return CLIPTextEncoder(module, tokenizer.start, tokenizer.end, tokenizer.pad)


def clip_tokenizer(text: TextWeights, key: str, directories: list[str]) -> PromptTokenizer:
    """Return the tokenizer of a CLIP encoder without one of its own: OpenAI's vocabulary."""
    length = text.full_config()["max_position_embeddings"]
    return clip_prompt_tokenizer(
        pad="<|endoftext|>" if key == "clip_l" else None,
        max_length=length,
        embedding_key=key,
        embedding_directories=directories,
    )


def sd1_clip(text: TextWeights, directories: list[str] | None = None, tokenizer: PromptTokenizer | None = None) -> CLIP:
    """Return the CLIP of Stable Diffusion 1; OpenAI's vocabulary when no tokenizer is given."""
    tokenizer = tokenizer or clip_tokenizer(text, "clip_l", directories or [])
    return CLIP(SD1TextModel(clip_encoder(text, tokenizer)), MultiTokenizer(l=tokenizer))


def one_clip(
    role: str, text: TextWeights, directories: list[str], tokenizer: PromptTokenizer | None, norm_layer: bool
) -> CLIP:
    """Return the CLIP of a family with one of OpenCLIP's text encoders; its vocabulary when no tokenizer is given."""
    text.openclip = True
    tokenizer = tokenizer or clip_tokenizer(text, role, directories)
    model = OneCLIPTextModel(role, clip_encoder(text, tokenizer), norm_layer)
    return CLIP(model, MultiTokenizer(**{role[-1]: tokenizer}))


def sdxl_clip(
    clip_l: TextWeights,
    clip_g: TextWeights,
    directories: list[str] | None = None,
    tokenizers: tuple[PromptTokenizer, PromptTokenizer] | None = None,
) -> CLIP:
    """Return the CLIP of Stable Diffusion XL."""
    first, second = tokenizers or (
        clip_tokenizer(clip_l, "clip_l", directories or []),
        clip_tokenizer(clip_g, "clip_g", directories or []),
    )
    clip_g.openclip = True
    model = SDXLTextModel(clip_encoder(clip_l, first), clip_encoder(clip_g, second))
    return CLIP(model, MultiTokenizer(g=second, l=first))


def qwen3_clip(
    text: TextWeights,
    folder: Path,
    role: str,
    template: str,
    layers: Sequence[int],
    min_length: int = 0,
    pad: int | None = None,
) -> CLIP:
    """Return the CLIP of a family that reads Qwen3.

    Args:
        text: the weights.
        folder: where `tokenizer.json` is.
        role: what the family calls it.
        template: "{}" stands for the prompt.
        layers: whose outputs are the embedding, side by side.
        min_length: to which prompts are padded.
        pad: the padding token, hidden from the prompt.
    """
    encode = load_chat_tokenizer(folder, "Qwen3")
    module = build_qwen3(text.weights, devices.text_encoder_dtype(wide_range=True))
    model = LanguageTextModel(role, LanguageModelEncoder(module, layers), pad)
    return CLIP(model, MultiTokenizer(**{role: ChatTokenizer(encode, template, min_length, pad or 0)}))


def mistral_clip(text: TextWeights, folder: Path, template: str, layers: Sequence[int]) -> CLIP:
    """Return the CLIP of a family that reads Mistral; its tokenizer is in the file, or `tokenizer.json` in a folder.

    Args:
        text: the weights.
        folder: where the tokenizer is if the file has none.
        template: "{}" stands for the prompt.
        layers: whose outputs are the embedding, side by side.
    """
    encode = load_chat_tokenizer(folder, "Mistral", text.tekken)
    module = build_mistral(text.weights, devices.text_encoder_dtype(wide_range=True), max(layers))
    model = LanguageTextModel(MISTRAL, LanguageModelEncoder(module, layers))
    return CLIP(model, MultiTokenizer(**{MISTRAL: ChatTokenizer(encode, template)}))


def t5_length(folder: Path) -> int:
    """Return tokens to which prompts for T5 are padded.

    ComfyUI's 256, or fewer where the tokenizer in `folder` has fewer.
    """
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    return min(T5_MIN_LENGTH, config.get("model_max_length", T5_MIN_LENGTH))


def flux_clip(
    clip_l: TextWeights,
    t5: TextWeights,
    t5_tokenizer_folder: Path,
    directories: list[str] | None = None,
    tokenizer: PromptTokenizer | None = None,
) -> CLIP:
    """Return the CLIP of Flux.1.

    Args:
        clip_l: CLIP-L.
        t5: T5's encoder.
        t5_tokenizer_folder: where `tokenizer.json` or `spiece.model` is.
        directories: of embeddings.
        tokenizer: of CLIP-L; OpenAI's vocabulary by default.
    """
    tokenizer = tokenizer or clip_tokenizer(clip_l, "clip_l", directories or [])
    encoder, t5_tokenizer = t5_encoder(t5, t5_tokenizer_folder, directories)
    return CLIP(
        FluxTextModel(clip_encoder(clip_l, tokenizer), encoder), MultiTokenizer(l=tokenizer, t5xxl=t5_tokenizer)
    )


def t5_encoder(
    t5: TextWeights, folder: Path, directories: list[str] | None = None, min_length: int = T5_MIN_LENGTH
) -> tuple[T5TextEncoder, PromptTokenizer]:
    """Return T5's encoder and its tokenizer.

    Args:
        t5: the weights.
        folder: where `tokenizer.json` or `spiece.model` is.
        directories: of embeddings.
        min_length: to which prompts are padded; less where the tokenizer has fewer tokens.
    """
    tokenizer = t5_prompt_tokenizer(load_t5_tokenizer(folder), min(min_length, t5_length(folder)), directories)
    module: torch.nn.Module = build_t5(t5.weights, devices.text_encoder_dtype(wide_range=True))
    return T5TextEncoder(module, None, tokenizer.end, tokenizer.pad), tokenizer
