"""Words that help most prompts, added by rule, the same for one prompt and seed."""

from __future__ import annotations

import re

from .texts import one_line

_OPEN = (
    (r"light|lit\b|sun|lamp|shad|glow|neon|night|dark|bright", ("soft natural light", "warm low light", "clear light")),
    (r"detail|intricate|ornate|texture|simple|minimal", ("finely detailed", "rich in detail", "highly detailed")),
    (r"focus|sharp|blur|soft|haz|fog|mist", ("sharp focus", "crisp edges")),
    (r"compos|view|angle|close.?up|portrait|frame|cent(?:re|er)", ("balanced composition", "clear composition")),
    (
        r"colou?r|\b(?:red|green|blue|yellow|orange|purple|violet|teal|pink|brown|black|white|gr[ae]y|gold)\b",
        ("harmonious colours", "rich colours"),
    ),
)
"""Topics that a prompt may leave open: a pattern that shows it does not, and phrases to add where it does."""


def add_words(prompt: str, seed: int = 0, max_words: int = 60) -> str:
    """Append words on what a prompt leaves open: light, detail, focus, composition, colour.

    Args:
        seed: chooses the wording, of which there are 72.
        max_words: upper bound of the words that are added.

    >>> add_words("a cat in the snow")
    'a cat in the snow, soft natural light, finely detailed, sharp focus, balanced composition, harmonious colours'
    >>> add_words("red moss, evening light,", max_words=5)
    'red moss, evening light, finely detailed, sharp focus'
    """
    kept = one_line(prompt).rstrip(" ,;.")
    added: list[str] = []
    for pattern, phrases in _OPEN:
        seed, choice = divmod(seed, len(phrases))
        phrase = phrases[choice]
        fits = len(" ".join([*added, phrase]).split()) <= max_words
        if fits and not re.search(pattern, kept, re.IGNORECASE):
            added.append(phrase)
    return ", ".join([kept, *added])
