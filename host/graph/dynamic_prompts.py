"""Dynamic prompts: `{a|b}` in a text is one of its choices, as ComfyUI's interface sends it."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

COMMENT = re.compile(r"/\*.*?\*/|//[^\n\r\u2028\u2029]*", re.DOTALL)
ESCAPED = re.compile(r"\\([{}|])")
SPECIAL = re.compile(r"[\\{]")


@dataclass
class _Level:
    """A text that is being read, and what has been made of it."""

    text: str
    at: int = 0
    done: list[str] = field(default_factory=list)


def dynamic_prompt(text: str) -> str:
    """Leave out comments (`/* */` and `//`) and choose one of each `{a|b}`; a backslash keeps `{`, `}` and `|`.

    A brace that is not closed ends with the text. ComfyUI's interface chooses anew for every run; here one text always
    gives one choice, so that runs can be repeated.
    """
    choice = random.Random(text)
    levels = [_Level(COMMENT.sub("", text))]
    while True:
        level = levels[-1]
        found = SPECIAL.search(level.text, level.at)
        level.done.append(level.text[level.at : found.start() if found else len(level.text)])
        if found is None:
            made = ESCAPED.sub(r"\1", "".join(level.done))
            levels.pop()
            if not levels:
                return made
            levels[-1].done.append(made)
        elif found[0] == "\\":
            level.done.append(level.text[found.start() : found.start() + 2])
            level.at = found.start() + 2
        else:
            options, level.at = _options(level.text, found.end())
            levels.append(_Level(COMMENT.sub("", choice.choice(options))))


def _options(text: str, start: int) -> tuple[list[str], int]:
    """Return the choices between a brace and its partner, and where the text goes on behind it."""
    cuts, depth, at = [start], 0, start
    while at < len(text) and (depth or text[at] != "}"):
        char = text[at]
        depth += (char == "{") - (char == "}")
        if char == "|" and not depth:
            cuts.append(at + 1)
        at += 2 if char == "\\" else 1
    end = min(at, len(text))
    stops = [*(cut - 1 for cut in cuts[1:]), end]
    return [text[cut:stop] for cut, stop in zip(cuts, stops, strict=True)], end + 1
