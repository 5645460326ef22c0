"""Language models as text encoders: the hidden states of some layers, of a prompt in a chat template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..layouts.state_dicts import StateDict, count_blocks, fill
from .clip_tokens import Encode, encoder, load_tokenizer_json
from .tekken import KEY as TEKKEN
from .tekken import tekken_tokenizer

HEAD_SIZE = 128
"""Of queries and keys in Qwen2.5-VL and Mistral."""

ROPE_THETA, MISTRAL_THETA = 1e6, 1e9
EPS, MISTRAL_EPS = 1e-6, 1e-5
MISTRAL_WIDTH = 5120
BEGIN = "<|im_start|>"
"""A prompt that begins so is in a template already."""

_PREFIX = re.compile(r"^(model\.|language_model\.)+")
Chunks = list[list[tuple[Any, ...]]]


class ChatTokenizer:
    """Puts a prompt into a template; brackets in it are text, since language models read no weights.

    Args:
        encode: text to ids, with special tokens by their names.
        template: "{}" stands for the prompt.
        min_length: to which prompts are padded.
        pad: the padding token.
        seeing: the template of prompts with images.
        image: the token in whose place an image is seen.
    """

    def __init__(
        self,
        encode: Encode,
        template: str,
        min_length: int = 0,
        pad: int = 0,
        seeing: str | None = None,
        image: int | None = None,
    ) -> None:
        self.encode, self.template, self.min_length, self.pad = encode, template, min_length, pad
        self.seeing, self.image = seeing, image

    def tokenize_with_weights(
        self,
        text: str,
        return_word_ids: bool = False,
        llama_template: str | None = None,
        images: Sequence[Tensor] = (),
        **options: Any,
    ) -> Chunks:
        """Return one chunk of (token, weight), or of (token, weight, 0).

        Args:
            text: the prompt.
            return_word_ids: whether tokens have a number of their word.
            llama_template: in place of the family's own.
            images: (B, H, W, 3) in 0..1, one for each token that stands for one.
            options: of other families' tokenizers.
        """
        template = llama_template or (self.seeing if images and self.seeing else self.template)
        whole = self.seeing is not None and text.startswith(BEGIN)
        ids: list[Any] = self.encode(text if whole else template.replace("{}", text, 1))
        ids += [self.pad] * (self.min_length - len(ids))
        shown = iter(images)
        entries = [_seen(shown, token) if token == self.image else token for token in ids]
        return [[(entry, 1.0, 0) if return_word_ids else (entry, 1.0) for entry in entries]]


def _seen(images: Iterator[Tensor], token: int) -> Any:
    image = next(images, None)
    return token if image is None else {"type": "image", "data": image, "original_type": "image"}


def load_chat_tokenizer(folder: Path, what: str, tekken: Tensor | None = None) -> Encode:
    """Return the tokenizer of a language model, from Tekken's bytes in its file or `tokenizer.json` in a folder.

    Raises:
        FileNotFoundError: it is not there.
    """
    if tekken is not None:
        return encoder(tekken_tokenizer(tekken))
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"the tokenizer of {what} is missing: put its tokenizer.json in {folder}")
    return encoder(load_tokenizer_json(path))


class LanguageModelEncoder(nn.Module):
    """Transformers' language model without its head.

    Args:
        transformer: the model; its state dict keys get the prefix `transformer.`.
        layers: whose outputs are the embedding, side by side: 0 the embeddings, -1 the last, normed.
    """

    sees_images = False

    def __init__(self, transformer: nn.Module, layers: Sequence[int]) -> None:
        super().__init__()
        self.transformer: Any = transformer
        self.layers = tuple(layers)

    def encode_tokens(self, chunks: Chunks, pad: int | None = None) -> Tensor:
        """Return the embedding (1, L, D * layers) of a chunk, on the CPU in float32; `pad` is hidden from the rest."""
        device = next(self.parameters()).device
        ids = torch.tensor([[token[0] for token in chunks[0]]], device=device)
        mask = None if pad is None else (ids != pad).long()
        return self._embedding(input_ids=ids, attention_mask=mask)

    def _embedding(self, **inputs: Any) -> Tensor:
        states = self.transformer(**inputs, output_hidden_states=True, use_cache=False).hidden_states
        return torch.cat([states[layer] for layer in self.layers], -1).float().cpu()


class LanguageTextModel(nn.Module):
    """The text encoder of a family that reads a language model alone.

    Args:
        role: what the encoder and its tokens are called.
        encoder: it.
        pad: the padding token, where it is hidden from the prompt.
    """

    def __init__(self, role: str, encoder: LanguageModelEncoder, pad: int | None = None) -> None:
        super().__init__()
        self.role, self.pad = role, pad
        self.add_module(role, encoder)

    def encode_token_weights(
        self, tokens: dict[str, Chunks], layer: int | None, projected: bool
    ) -> tuple[Tensor, None]:
        """Return text embedding (1, L, D)."""
        encoder: Any = self.get_submodule(self.role)
        return encoder.encode_tokens(tokens[self.role], self.pad), None


def is_qwen3(sd: StateDict) -> bool:
    """Return whether weights are those of Qwen3."""
    return "layers.0.self_attn.q_norm.weight" in without_head(sd)


def without_head(sd: StateDict) -> StateDict:
    """Return a language model's weights (keys `model.`, `language_model.`, both or none) without those of its head."""
    found = {_PREFIX.sub("", key): tensor for key, tensor in sd.items()}
    return {key: tensor for key, tensor in found.items() if key.startswith(("embed_tokens.", "layers.", "norm."))}


def build_qwen3(sd: StateDict, dtype: torch.dtype) -> nn.Module:
    """Return transformers' `Qwen3Model` with these weights."""
    from transformers import Qwen3Config, Qwen3Model

    sd = without_head(sd)
    head = sd["layers.0.self_attn.q_norm.weight"].shape[0]
    return filled(Qwen3Model, Qwen3Config(**shape_of(sd, head), head_dim=head), sd, dtype)


def is_mistral(sd: StateDict) -> bool:
    """Return whether weights are those of Mistral Small 3, by their width or the tokenizer among them."""
    found = without_head(sd)
    if "layers.0.self_attn.q_proj.weight" not in found or is_qwen2(sd) or is_qwen3(sd):
        return False
    return TEKKEN in sd or found["embed_tokens.weight"].shape[1] == MISTRAL_WIDTH


def build_mistral(sd: StateDict, dtype: torch.dtype, layers: int) -> nn.Module:
    """Return transformers' `MistralModel` with the first layers of these weights, whose outputs are not normed."""
    from transformers import MistralConfig, MistralModel

    sd = {key: tensor for key, tensor in without_head(sd).items() if _layer(key) < layers and key != "norm.weight"}
    shape: dict[str, Any] = shape_of(sd, HEAD_SIZE) | {"rms_norm_eps": MISTRAL_EPS, "rope_theta": MISTRAL_THETA}
    return filled(
        MistralModel, MistralConfig(**shape, head_dim=HEAD_SIZE, sliding_window=None), sd, dtype, normed=False
    )


def _layer(key: str) -> int:
    return int(key.split(".")[1]) if key.startswith("layers.") else 0


def is_qwen2(sd: StateDict) -> bool:
    """Return whether weights are those of Qwen2 or Qwen2.5-VL."""
    return "layers.0.self_attn.q_proj.bias" in without_head(sd)


def build_qwen2(sd: StateDict, dtype: torch.dtype) -> nn.Module:
    """Return transformers' `Qwen2Model` with these weights, which Qwen2.5-VL is for text alone."""
    from transformers import Qwen2Config, Qwen2Model

    sd = without_head(sd)
    return filled(Qwen2Model, Qwen2Config(**shape_of(sd, HEAD_SIZE)), sd, dtype)


def shape_of(sd: StateDict, head: int) -> dict[str, Any]:
    """Return the arguments that configurations of Qwen's language models share, of weights and the size of heads."""
    vocabulary, width = sd["embed_tokens.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": sd["layers.0.mlp.gate_proj.weight"].shape[0],
        "num_hidden_layers": count_blocks(sd, "layers."),
        "num_attention_heads": sd["layers.0.self_attn.q_proj.weight"].shape[0] // head,
        "num_key_value_heads": sd["layers.0.self_attn.k_proj.weight"].shape[0] // head,
        "rms_norm_eps": EPS,
        "rope_theta": ROPE_THETA,  # Where transformers 4 has it; 5 reads both.
    }


def filled(kind: Any, config: Any, sd: StateDict, dtype: torch.dtype, normed: bool = True) -> nn.Module:
    """Return a language model of transformers with weights, whose last layer is normed or not."""
    with torch.device("meta"):
        module = kind(config)
    # What is not in files, such as frequencies of rotary embeddings, is computed anew.
    module.rotary_emb = type(module.rotary_emb)(config)
    if not normed:
        module.norm = nn.Identity()
    return fill(module, sd, dtype, "the language model")
