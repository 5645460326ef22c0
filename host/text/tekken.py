"""Mistral's tokenizer, Tekken, which files of its weights hold as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from .clip_tokens import byte_characters

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KEY = "tekken_model"
"""Of the JSON's bytes among the weights."""

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""Of Llama 3, which ComfyUI reads prompts for Mistral with."""


def tekken_tokenizer(data: torch.Tensor) -> Tokenizer:
    """Return the tokenizer of a file's bytes (N,).

    Raises:
        ValueError: they are not Tekken's JSON.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    try:
        ranks, special = _read(json.loads(bytes(data.numpy())))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the tokenizer in the file ({KEY}) is damaged ({type(error).__name__}: {error})") from None
    letters = byte_characters()
    words = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [(words[left], words[right]) for left, right in _merges(ranks)]
    vocabulary = special | {words[token]: rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    split = pre_tokenizers.Split(Regex(_WORDS), behavior="isolated")
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def _read(tekken: Any) -> tuple[dict[bytes, int], dict[str, int]]:
    """Return the ids of pieces of text by rank, and of special tokens, which come before them."""
    config = tekken["config"]
    count = int(config["default_num_special_tokens"])
    kept = int(config["default_vocab_size"]) - count
    pieces = [each for each in tekken["vocab"] if each["rank"] < kept]
    special = {each["token_str"]: each["rank"] for each in tekken["special_tokens"]}
    return {base64.b64decode(each["token_bytes"]): each["rank"] + count for each in pieces}, special


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs of pieces that are one piece, the lowest rank first."""
    for token in sorted(ranks, key=lambda token: ranks[token]):
        pairs = ((token[:place], token[place:]) for place in range(1, len(token)))
        known = [(ranks[left], ranks[right], left, right) for left, right in pairs if left in ranks and right in ranks]
        yield from ((left, right) for _, _, left, right in sorted(known))
