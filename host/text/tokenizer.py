"""Prompts to chunks of weighted tokens (drop-in replacement for the tokenizers of `comfy.sd1_clip`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...weights.files import read_weights
from ..layouts.state_dicts import load_state_dict
from .clip_tokens import END, START, Encode, default_clip_tokenizer, encoder
from .prompt_syntax import parse_weights, split_embeddings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

Token = tuple[int | torch.Tensor, float, int]
"""A token id or the vector (D,) of an embedding, its weight, and the number of its word from 1 (0 for padding)."""

Chunks = list[list[tuple[Any, ...]]]

CLIP_LENGTH = 77
T5_MIN_LENGTH = 256
LONG_WORD = 8
"""Longer words are cut at the end of a chunk, shorter ones begin the next."""

EMBEDDING = "embedding:"


@dataclass
class PromptTokenizer:
    """Turns a prompt into chunks for one text encoder.

    Args:
        encode: text to ids, without start and end tokens.
        start: id that begins each chunk, if any.
        end: id that ends each chunk.
        pad: id behind the end.
        max_length: of a chunk, all tokens counted; None for one chunk of any length.
        min_length: of a chunk.
        min_padding: how many padding tokens follow the end token at least.
        embedding_key: this encoder's name in files that hold embeddings of several encoders.
        embedding_directories: where `embedding:name` is looked for.
    """

    encode: Encode
    start: int | None
    end: int
    pad: int
    max_length: int | None = CLIP_LENGTH
    min_length: int = 0
    embedding_key: str = "clip_l"
    embedding_directories: list[str] = field(default_factory=list)
    min_padding: int = 0

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> Chunks:
        """Return chunks of (token, weight), or of (token, weight, word number); `options` are of other tokenizers."""
        chunks = self._chunk(self._words(text))
        return [[token if return_word_ids else token[:2] for token in chunk] for chunk in chunks]

    def _words(self, text: str) -> list[list[tuple[int | torch.Tensor, float]]]:
        words = []
        for segment, weight in parse_weights(text):
            for part in split_embeddings(segment):
                if part.startswith(EMBEDDING) and self.embedding_directories:
                    vectors, part = self._embedding(part[len(EMBEDDING) :])
                    if vectors is not None:
                        words.append([(vector, weight) for vector in vectors])
                    if not part:
                        continue
                words.append([(token, weight) for token in self.encode(part)])
        return words

    def _embedding(self, text: str) -> tuple[torch.Tensor | None, str]:
        """Return the vectors (N, D) that a text begins with the name of, and the text behind the name."""
        name, *rest = text.strip("\n").split() or [""]
        rest = " ".join(rest)
        bracket = min((i for i in (name.find("<"), name.find("[")) if i >= 0), default=len(name))
        if bracket < len(name):
            rest = f"{name[bracket:]} {rest}" if rest else name[bracket:]
            name = name[:bracket]
        tail = rest
        for candidate in dict.fromkeys((name, name.strip(","))):
            behind = name[len(candidate) :]
            tail = f"{behind} {rest}" if behind else rest
            path = find_embedding(candidate, self.embedding_directories)
            if path is not None:
                return load_embedding(path, self.embedding_key), tail
        log.warning("embedding %s is not in %s; it is left out", name, ", ".join(self.embedding_directories))
        return None, tail

    def _chunk(self, words: list[list[tuple[int | torch.Tensor, float]]]) -> list[list[Token]]:
        begin: list[Token] = [] if self.start is None else [(self.start, 1.0, 0)]
        chunks: list[list[Token]] = [[*begin]]
        limit = float("inf") if self.max_length is None else self.max_length - 1
        for number, word in enumerate(words, 1):
            rest: list[Token] = [(token, weight, number) for token, weight in word]
            is_long = len(rest) >= LONG_WORD
            while len(chunks[-1]) + len(rest) > limit:
                room = int(limit) - len(chunks[-1]) if is_long else 0
                chunks[-1] += rest[:room]
                rest = rest[room:]
                self._finish(chunks[-1])
                chunks.append([*begin])
            chunks[-1] += rest
        self._finish(chunks[-1])
        return chunks

    def _finish(self, chunk: list[Token]) -> None:
        chunk.append((self.end, 1.0, 0))
        chunk += [(self.pad, 1.0, 0)] * self.min_padding
        length = max(self.max_length or 0, self.min_length)
        chunk += [(self.pad, 1.0, 0)] * (length - len(chunk))


def clip_prompt_tokenizer(
    tokenizer: Tokenizer | None = None,
    pad: str | None = END,
    max_length: int = CLIP_LENGTH,
    embedding_key: str = "clip_l",
    embedding_directories: list[str] | None = None,
) -> PromptTokenizer:
    """Return the tokenizer of a CLIP text encoder.

    Args:
        tokenizer: OpenAI's vocabulary by default.
        pad: the padding token; None for id 0, as SDXL's second encoder has it.
        max_length: positions of the encoder.
    """
    words = tokenizer if tokenizer is not None else default_clip_tokenizer()
    start, end = words.token_to_id(START), words.token_to_id(END)
    if start is None or end is None:
        raise ValueError(f"the tokenizer knows no {START} or {END}, expected CLIP's vocabulary")
    pad_id = 0 if pad is None else words.token_to_id(pad)
    if pad_id is None:
        raise ValueError(f"the tokenizer's padding token {pad!r} is not in its vocabulary")
    return PromptTokenizer(
        encoder(words), start, end, pad_id, max_length, 0, embedding_key, embedding_directories or []
    )


def t5_prompt_tokenizer(
    encode: Encode, min_length: int = T5_MIN_LENGTH, embedding_directories: list[str] | None = None
) -> PromptTokenizer:
    """Return the tokenizer of T5: one chunk of at least `min_length` tokens, padded with 0 behind the end token 1."""
    return PromptTokenizer(encode, None, 1, 0, None, min_length, "t5xxl", embedding_directories or [])


def find_embedding(name: str, directories: list[str]) -> Path | None:
    """Return the file of an embedding, by name with or without its ending, in the directories and their folders."""
    for directory in directories:
        root = Path(directory).resolve()
        for folder in [root, *sorted(path for path in root.rglob("*") if path.is_dir())]:
            for ending in ("", ".safetensors", ".pt", ".bin"):
                path = (folder / (name + ending)).resolve()
                if name and path.is_file() and path.is_relative_to(root):
                    return path
    return None


def load_embedding(path: Path, key: str) -> torch.Tensor:
    """Return the vectors (N, D) of a textual inversion file, for the encoder named `key` where the file has several."""
    if path.suffix == ".pt":
        content = read_weights(path)
        content = content.get("string_to_param", content)
    else:
        content = load_state_dict(path)
    vectors = content.get(key, next(iter(content.values()), None)) if isinstance(content, Mapping) else None
    if not isinstance(vectors, torch.Tensor) or not vectors.ndim:
        raise ValueError(f"{path} is not an embedding: it holds no vectors")
    return vectors.detach().reshape(-1, vectors.shape[-1])


class MultiTokenizer:
    """The tokenizers of a model's text encoders, by the names of ComfyUI's token dictionaries: l, g, t5xxl."""

    def __init__(self, **tokenizers: Any) -> None:
        self.tokenizers = tokenizers

    def with_padding(self, name: str, min_length: int, min_padding: int) -> MultiTokenizer:
        """Return the same tokenizers, of which one pads prompts otherwise; nothing changes where there is none."""
        if name not in self.tokenizers:
            return self
        changed = replace(self.tokenizers[name], min_length=min_length, min_padding=min_padding)
        return MultiTokenizer(**{**self.tokenizers, name: changed})

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> dict[str, Chunks]:
        """Return the chunks of every encoder; `options` are for tokenizers that know them."""
        tokenizers = self.tokenizers.items()
        return {name: each.tokenize_with_weights(text, return_word_ids, **options) for name, each in tokenizers}
