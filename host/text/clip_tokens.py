"""Text to token ids: CLIP's byte pair encoding, and T5's pieces, from files beside the weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...weights.files import read_json, reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Encode = Callable[[str], list[int]]
"""Text to token ids, without start and end tokens."""

CLIP_MERGES = Path(__file__).parent / "clip_vocabulary" / "merges.txt"
START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""Radford et al. 2021: contractions, runs of letters, single digits, runs of everything else."""


def byte_characters() -> dict[int, str]:
    """Return the characters of bytes in byte-level encodings.

    Printable ones first, then the rest from U+0100.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Return the merges of a `merges.txt`, best first."""
    with reading(path):
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        pairs = [line.split() for line in lines if line.strip()]
        return [(a, b) for a, b in pairs]


def clip_vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Return token ids of a byte-level encoding with word ends, as OpenAI counts them.

    Bytes, bytes at word ends, merges.
    """
    characters = byte_characters().values()
    tokens = [*characters, *(char + "</w>" for char in characters), *(a + b for a, b in merges), START, END]
    return {token: index for index, token in enumerate(tokens)}


def clip_tokenizer(merges: list[tuple[str, str]], vocabulary: dict[str, int]) -> Tokenizer:
    """Return CLIP's tokenizer without start and end tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    model = models.BPE(vocab=vocabulary, merges=merges, unk_token=END, end_of_word_suffix="</w>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (START, END)])
    return tokenizer


@cache
def default_clip_tokenizer() -> Tokenizer:
    """Return OpenAI's vocabulary of 49408 tokens."""
    merges = read_merges(CLIP_MERGES)
    return clip_tokenizer(merges, clip_vocabulary(merges))


def load_clip_tokenizer(folder: Path) -> tuple[Tokenizer, str]:
    """Return the tokenizer of a diffusers folder and its padding token.

    Raises:
        FileNotFoundError: the folder holds neither `vocab.json` and `merges.txt` nor `tokenizer.json`.
    """
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer = clip_tokenizer(read_merges(folder / "merges.txt"), read_json(folder / "vocab.json"))
    elif (folder / "tokenizer.json").is_file():
        tokenizer = load_tokenizer_json(folder / "tokenizer.json")
    else:
        raise FileNotFoundError(f"{folder} needs vocab.json and merges.txt, or tokenizer.json")
    return tokenizer, _padding(folder)


def _padding(folder: Path) -> str:
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        token: Any = read_json(folder / name).get("pad_token") if (folder / name).is_file() else None
        if token is not None:
            return token["content"] if isinstance(token, dict) else token
    return END


def load_tokenizer_json(path: Path) -> Tokenizer:
    """Return a tokenizer of the `tokenizers` library, without padding and limits.

    Raises:
        ValueError: the file is damaged.
    """
    from tokenizers import Tokenizer

    with reading(path):
        tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encoder(tokenizer: Tokenizer) -> Encode:
    """Return text to ids with a tokenizer of the `tokenizers` library."""
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def load_t5_tokenizer(folder: Path) -> Encode:
    """Return T5's tokenizer, from `tokenizer.json` or `spiece.model` in a folder.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: the file is damaged, or cannot be read with what is installed.
    """
    if (folder / "tokenizer.json").is_file():
        return encoder(load_tokenizer_json(folder / "tokenizer.json"))
    if (folder / "spiece.model").is_file():
        return _load_sentencepiece(folder / "spiece.model")
    raise FileNotFoundError(
        f"T5's tokenizer is missing: put tokenizer.json or spiece.model (Flux.1's folder tokenizer_2) in {folder}"
    )


def _load_sentencepiece(path: Path) -> Encode:
    try:
        from sentencepiece import SentencePieceProcessor  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f"{path} needs the package sentencepiece; install it, or put tokenizer.json beside the file"
        ) from None
    with reading(path):
        return SentencePieceProcessor(model_file=str(path)).encode
