"""A small tokenizer of Mistral's kind, in the JSON that files of weights hold."""

from __future__ import annotations

import base64
import json

import torch

SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<pad>"]
WORDS = ("moss", " moss", " the", " an", " stone", "ing", "ed", "'s", "12", ".\n", "\u00e4", "\u6c34", " \u6c34")
"""Pieces whose beginnings are pieces, too."""


def tekken() -> torch.Tensor:
    """The bytes (N,); ids beyond the vocabulary's size are left out, as in Mistral's files."""
    pieces = [bytes([byte]) for byte in range(256)]
    for word in WORDS:
        whole = word.encode()
        pieces += [whole[:end] for end in range(2, len(whole) + 1) if whole[:end] not in pieces]
    vocabulary = [{"rank": rank, "token_bytes": base64.b64encode(piece).decode()} for rank, piece in enumerate(pieces)]
    beyond = {"rank": len(pieces), "token_bytes": base64.b64encode(b"moss the").decode()}
    count = len(SPECIAL)
    config = {"default_vocab_size": len(pieces) + count, "default_num_special_tokens": count}
    special = [{"rank": rank, "token_str": token} for rank, token in enumerate(SPECIAL)]
    made = {"config": config, "vocab": [*vocabulary, beyond], "special_tokens": special}
    return torch.frombuffer(bytearray(json.dumps(made).encode()), dtype=torch.uint8)
