"""Messages matched by what they must name, so that their wording is free."""

from __future__ import annotations

import re


class Naming(str):
    """A pattern for `match=`, and the words that it stands for."""

    parts: tuple[str, ...] = ()


def naming(*parts: object) -> Naming:
    """Make a pattern for `match=`: a message of one line that names every part, in any order, as a word of its own.

    Name what tells this error from others: the node, the input, the value that was found, what was expected, the file.

    >>> bool(re.search(naming("width", 160, 128), "the width is 160 px; set it to 128 px"))
    True
    >>> bool(re.search(naming("width", 60), "the width is 160 px"))
    False
    """
    pattern = Naming(r"\A(?!(?s:.*)\n)" + "".join(f"(?=.*{_word(str(part))})" for part in parts))
    pattern.parts = tuple(map(str, parts))
    return pattern


def _word(part: str) -> str:
    before = r"(?<![\w.])" if re.match(r"\w", part) else ""
    after = r"(?!\w|\.\d)" if re.search(r"\w\Z", part) else ""
    return before + re.escape(part) + after
