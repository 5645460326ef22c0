"""Text from people and from models, made into one line of a prompt."""

from __future__ import annotations

import re

_QUOTES = {('"', '"'), ("'", "'"), ("`", "`"), ("\u201c", "\u201d")}
# "Prompt:" or "Here is the description:" before the answer itself.
_LABEL = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|here)\b[^:]{0,60}|(?:[a-z]+ ){0,2}(?:prompt|description))\**:\**\s*",
    re.IGNORECASE,
)
# Stands for bytes that are no character.
_BROKEN = "\ufffd"


def one_line(text: str) -> str:
    """Text with single spaces, without line breaks and signs that cannot be seen."""
    return " ".join("".join(sign if sign.isprintable() and sign != _BROKEN else " " for sign in text).split())


def answer(text: str) -> str:
    """What a chat model answers, in one line: without its thoughts, a heading and the quotation marks around it."""
    lines = [line for line in text.rpartition("</think>")[2].splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].rstrip().endswith(":"):
        lines = lines[1:]
    said = _LABEL.sub("", one_line(" ".join(lines)).strip("* "))
    while len(said) > 1 and (said[0], said[-1]) in _QUOTES:
        said = said[1:-1].strip()
    return said.lstrip(" ,.;:")


def first_line(text: str) -> str:
    """The first line of a continuation that is not empty. It keeps a space before it, which begins a new word."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return " " * line[:1].isspace() + one_line(line)


def bounded(text: str, most: int, ended: bool) -> str:
    """At most so many words of a text. One that was not `ended` loses its last word, which may be half of one."""
    words = text.split(" ")
    kept = words[: min(most, len(words) if ended else max(1, len(words) - 1))]
    return " ".join(kept) if kept == words else " ".join(kept).rstrip(" ,;:-")
