r"""The grammar of prompts: `(more)`, `(exactly:1.3)`, nested, `\(literal\)`, `embedding:name`."""

from __future__ import annotations

import re

MORE = 1.1
# Characters that no prompt holds stand for escaped brackets while brackets are read.
_OPEN, _CLOSE = "\0\2", "\0\1"
_EMBEDDING = re.compile(r"(?<=\s)(?=embedding:)")


def parse_weights(prompt: str) -> list[tuple[str, float]]:
    """Return the prompt's segments in order, each with its weight.

    Brackets multiply the weight of what they hold by 1.1 for each level; a number behind a colon is the weight itself.
    Brackets without a partner are text.
    """
    escaped = prompt.replace("\\)", _CLOSE).replace("\\(", _OPEN)
    segments = _weigh(escaped, 1.0)
    return [(text.replace(_CLOSE, ")").replace(_OPEN, "("), weight) for text, weight in segments]


def _weigh(text: str, weight: float) -> list[tuple[str, float]]:
    segments: list[tuple[str, float]] = []
    for part in _split_brackets(text):
        if len(part) < 2 or part[0] != "(" or part[-1] != ")":
            segments.append((part, weight))
            continue
        inner, inner_weight = _read_weight(part[1:-1], weight * MORE)
        segments += _weigh(inner, inner_weight)
    return segments


def _read_weight(text: str, default: float) -> tuple[str, float]:
    head, colon, tail = text.rpartition(":")
    if not colon or not head:
        return text, default
    try:
        return head, float(tail)
    except ValueError:
        return text, default


def _split_brackets(text: str) -> list[str]:
    """Cut text before and behind every outermost pair of brackets."""
    cuts, depth = [0], 0
    for index, char in enumerate(text):
        if char == "(":
            if depth == 0:
                cuts.append(index)
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                cuts.append(index + 1)
    cuts.append(len(text))
    return [text[a:b] for a, b in zip(cuts, cuts[1:], strict=False) if b > a]


def split_embeddings(segment: str) -> list[str]:
    """Cut a segment so that every `embedding:` that follows white space starts a part."""
    return [part for part in _EMBEDDING.split(segment) if part]
