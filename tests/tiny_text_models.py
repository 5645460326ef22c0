"""Random text models of a few thousand weights, in transformers folders: one that goes on, one that chats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = [
    *("moss", "stone", "river", "lantern", "copper", "wool", "fern", "slate", "amber", "linen", "birch", "cloud"),
    *("old", "wet", "pale", "warm", "deep", "quiet", "on", "under", "of", "and", "with", ",", "."),
]
SPECIAL = ["<unknown>", "<end>", "<user>", "<model>"]
TEMPLATE = (
    "{% for message in messages %}<user> {{ message['content'] }} <end>{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)
READS = 160


def gpt2_folder(path: Path) -> Path:
    """A model without a chat template."""
    from transformers import GPT2Config, GPT2LMHeadModel

    size: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": READS}
    ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 1}
    return _save(GPT2LMHeadModel(GPT2Config(vocab_size=len(SPECIAL + WORDS), **size, **ends)), path, None)


def llama_folder(path: Path) -> Path:
    """A model with a chat template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    size: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 1, "max_position_embeddings": READS}
    return _save(LlamaForCausalLM(LlamaConfig(vocab_size=len(SPECIAL + WORDS), **size, **ends)), path, TEMPLATE)


def _save(model: Any, path: Path, template: str | None) -> Path:
    """Weights large enough that what comes next depends on what came before; the end comes seldom."""
    generator = torch.Generator().manual_seed(5)
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.3
    model.get_output_embeddings().weight.data[: len(SPECIAL)] = 0
    # Draws of its own settings would use torch's random numbers.
    model.generation_config.do_sample, model.generation_config.top_p = True, 0.9
    model.save_pretrained(path)
    tokenizer = _tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path)
    return path


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token=SPECIAL[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    known: dict[str, Any] = {"unk_token": SPECIAL[0], "eos_token": SPECIAL[1], "additional_special_tokens": SPECIAL[2:]}
    return PreTrainedTokenizerFast(tokenizer_object=words, **known)
