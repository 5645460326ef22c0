"""Language models as text encoders: the hidden states of some layers, of a prompt in a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..layouts.state_dicts import StateDict, count_blocks, fill
from .clip_tokens import Encode, encoder, load_tokenizer_json

HEAD_SIZE = 128
"""Of queries and keys in Qwen2.5-VL."""

ROPE_THETA = 1000000.0
EPS = 1e-6
Chunks = list[list[tuple[Any, ...]]]


class ChatTokenizer:
    """Puts a prompt into a template; brackets in it are text, since language models read no weights.

    Args:
        encode: text to ids, with special tokens by their names.
        template: "{}" stands for the prompt.
        min_length: to which prompts are padded.
        pad: the padding token.
    """

    def __init__(self, encode: Encode, template: str, min_length: int = 0, pad: int = 0) -> None:
        self.encode, self.template, self.min_length, self.pad = encode, template, min_length, pad

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False) -> Chunks:
        """Return one chunk of (token, weight), or of (token, weight, 0)."""
        ids = self.encode(self.template.replace("{}", text, 1))
        ids += [self.pad] * (self.min_length - len(ids))
        return [[(token, 1.0, 0) if return_word_ids else (token, 1.0) for token in ids]]


def load_chat_tokenizer(folder: Path, what: str) -> Encode:
    """Return the tokenizer of a language model, from `tokenizer.json` in a folder.

    Raises:
        FileNotFoundError: it is not there.
    """
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

    def __init__(self, transformer: nn.Module, layers: Sequence[int]) -> None:
        super().__init__()
        self.transformer: Any = transformer
        self.layers = tuple(layers)

    def encode_tokens(self, chunks: Chunks, pad: int | None = None) -> Tensor:
        """Return the embedding (1, L, D * layers) of a chunk, on the CPU in float32; `pad` is hidden from the rest."""
        device = next(self.parameters()).device
        ids = torch.tensor([[token[0] for token in chunks[0]]], device=device)
        mask = None if pad is None else (ids != pad).long()
        run = self.transformer(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        states = run.hidden_states
        return torch.cat([states[layer] for layer in self.layers], -1).float().cpu()


def is_qwen3(sd: StateDict) -> bool:
    """Return whether weights are those of Qwen3."""
    return "layers.0.self_attn.q_norm.weight" in without_head(sd)


def without_head(sd: StateDict) -> StateDict:
    """Return a language model's weights (keys `model.` or none) without those of its head."""
    found = {key.removeprefix("model."): tensor for key, tensor in sd.items()}
    return {key: tensor for key, tensor in found.items() if key.startswith(("embed_tokens.", "layers.", "norm."))}


def build_qwen3(sd: StateDict, dtype: torch.dtype) -> nn.Module:
    """Return transformers' `Qwen3Model` with these weights."""
    from transformers import Qwen3Config, Qwen3Model

    sd = without_head(sd)
    vocabulary, width = sd["embed_tokens.weight"].shape
    head = sd["layers.0.self_attn.q_norm.weight"].shape[0]
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=sd["layers.0.mlp.gate_proj.weight"].shape[0],
        num_hidden_layers=count_blocks(sd, "layers."),
        num_attention_heads=sd["layers.0.self_attn.q_proj.weight"].shape[0] // head,
        num_key_value_heads=sd["layers.0.self_attn.k_proj.weight"].shape[0] // head,
        head_dim=head,
        rms_norm_eps=EPS,
        rope_theta=ROPE_THETA,  # pyright: ignore[reportCallIssue] - where transformers 4 has it; 5 reads both
    )
    return _filled(Qwen3Model, config, sd, dtype)


def is_qwen2(sd: StateDict) -> bool:
    """Return whether weights are those of Qwen2 or Qwen2.5-VL."""
    return "layers.0.self_attn.q_proj.bias" in without_head(sd)


def build_qwen2(sd: StateDict, dtype: torch.dtype) -> nn.Module:
    """Return transformers' `Qwen2Model` with these weights, which Qwen2.5-VL is for text alone."""
    from transformers import Qwen2Config, Qwen2Model

    sd = without_head(sd)
    vocabulary, width = sd["embed_tokens.weight"].shape
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=sd["layers.0.mlp.gate_proj.weight"].shape[0],
        num_hidden_layers=count_blocks(sd, "layers."),
        num_attention_heads=sd["layers.0.self_attn.q_proj.weight"].shape[0] // HEAD_SIZE,
        num_key_value_heads=sd["layers.0.self_attn.k_proj.weight"].shape[0] // HEAD_SIZE,
        rms_norm_eps=EPS,
        rope_theta=ROPE_THETA,  # pyright: ignore[reportCallIssue] - where transformers 4 has it; 5 reads both
    )
    return _filled(Qwen2Model, config, sd, dtype)


def _filled(kind: Any, config: Any, sd: StateDict, dtype: torch.dtype) -> nn.Module:
    with torch.device("meta"):
        module = kind(config)
    # What is not in files, such as frequencies of rotary embeddings, is computed anew.
    module.rotary_emb = type(module.rotary_emb)(config)
    return fill(module, sd, dtype, "the language model")
