"""A T5 tokenizer of a few hundred pieces: each word of the captions is one, characters spell everything else."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from .captions import vocabulary

LENGTH = 16
"""Tokens that a prompt is padded to; no caption has more."""

SPECIAL = ("<pad>", "</s>", "<unk>")
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
WORD, LETTER = -1.0, -10.0
"""Scores of a whole word and of a character: the best path takes words where there are any."""


def pieces() -> list[tuple[str, float]]:
    """Every piece with its score (Kudo 2018), in the order of its id."""
    letters = [SPACE, *string.ascii_letters, *string.digits, *string.punctuation]
    return [
        *((mark, 0.0) for mark in SPECIAL),
        *((letter, LETTER) for letter in letters),
        *((SPACE + word, WORD) for word in vocabulary()),
    ]


def vocabulary_size() -> int:
    return len(pieces())


def tokenizer_json() -> dict[str, Any]:
    """The content of `tokenizer.json`, in the shape of T5's own."""
    end = {"SpecialToken": {"id": SPECIAL[1], "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    marks = [
        {"id": i, "content": mark, "single_word": False, "lstrip": False, "rstrip": False}
        for i, mark in enumerate(SPECIAL)
    ]
    space = {"type": "Metaspace", "replacement": SPACE}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [mark | {"normalized": False, "special": True} for mark in marks],
        "normalizer": None,
        "pre_tokenizer": space | {"prepend_scheme": "first", "split": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": {SPECIAL[1]: {"id": SPECIAL[1], "ids": [1], "tokens": [SPECIAL[1]]}},
        },
        "decoder": space | {"prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces(), "byte_fallback": False},
    }


def write_t5_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "tokenizer_class": "T5Tokenizer",
        "model_max_length": LENGTH,
        "eos_token": SPECIAL[1],
        "pad_token": SPECIAL[0],
        "unk_token": SPECIAL[2],
        "extra_ids": 0,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
