"""Text from people and from models, made into one line of a prompt."""

from __future__ import annotations

import re

_QUOTES = {('"', '"'), ("'", "'"), ("`", "`"), ("\u201c", "\u201d")}
_LABEL = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|here)\b[^:]{0,60}|(?:[a-z]+ ){0,2}(?:prompt|description))\**:\**\s*",
    re.IGNORECASE,
)
"""Labels before the answer itself, such as "Prompt:" or "Here is the description:"."""
_BROKEN = "\ufffd"
"""Replacement character of undecodable bytes."""


def one_line(text: str) -> str:
    """Collapse white space and drop line breaks and unprintable characters."""
    return " ".join("".join(sign if sign.isprintable() and sign != _BROKEN else " " for sign in text).split())


def answer(text: str) -> str:
    """Return the answer of a chat model as one line, without its thinking, a heading or quotation marks."""
    lines = [line for line in text.rpartition("</think>")[2].splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].rstrip().endswith(":"):
        lines = lines[1:]
    said = _LABEL.sub("", one_line(" ".join(lines)).strip("* "))
    while len(said) > 1 and (said[0], said[-1]) in _QUOTES:
        said = said[1:-1].strip()
    return said.lstrip(" ,.;:")


def first_line(text: str) -> str:
    """Return the first line of a continuation that is not empty, with a leading space where a word begins."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return " " * line[:1].isspace() + one_line(line)


def bounded(text: str, most: int, ended: bool) -> str:
    """Return at most `most` words of a text. One that was not `ended` loses its last word, which may be cut."""
    words = text.split(" ")
    kept = words[: min(most, len(words) if ended else max(1, len(words) - 1))]
    return " ".join(kept) if kept == words else " ".join(kept).rstrip(" ,;:-")
