"""A CLIP tokenizer of a few hundred tokens: bytes spell any text, each word of the captions is one token."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
"""Tokens of a prompt, both marks included."""

CONFIG = {
    "tokenizer_class": "CLIPTokenizer",
    "model_max_length": LENGTH,
    "bos_token": START,
    "eos_token": END,
    "unk_token": END,
    "pad_token": END,
    "do_lower_case": True,
    "errors": "replace",
    "add_prefix_space": False,
}


def byte_symbols() -> list[str]:
    """The printable stand-ins of GPT-2's and CLIP's byte-level BPE, in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    missing = len(set(range(256)) - set(printable))
    return [chr(c) for c in printable] + [chr(256 + i) for i in range(missing)]


def merges(words: list[str]) -> list[tuple[str, str]]:
    """Learn byte-pair merges, the commonest pair first, until every word is one token (Sennrich et al. 2016).

    Args:
        words: ASCII words in lower case.
    """
    split = [[*word[:-1], word[-1] + "</w>"] for word in words]
    learned: list[tuple[str, str]] = []
    while any(len(word) > 1 for word in split):
        counts = Counter(pair for word in split for pair in zip(word, word[1:], strict=False))
        pair = max(counts, key=lambda p: (counts[p], p))
        learned.append(pair)
        split = [_merged(word, pair) for word in split]
    return learned


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    for symbol in word:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


def write_tokenizer(folder: Path, words: list[str]) -> int:
    """Write vocab.json, merges.txt and tokenizer_config.json; returns the number of tokens."""
    learned, symbols = merges(words), byte_symbols()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *(a + b for a, b in learned), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in learned)]) + "\n", encoding="utf-8"
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    return len(tokens)
