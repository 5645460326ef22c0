"""Captions for two-coloured textures, in several wordings, with some colour pairs held out of training."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from .textures import PALETTE, PATTERNS

Pair = tuple[str, str]

HELD_OUT: frozenset[frozenset[str]] = frozenset(
    frozenset(pair)
    for pair in (
        ("red", "teal"),
        ("teal", "black"),
        ("black", "yellow"),
        ("yellow", "purple"),
        ("purple", "white"),
        ("white", "orange"),
        ("orange", "blue"),
        ("blue", "pink"),
        ("pink", "green"),
        ("green", "red"),
    )
)
"""Pairs that no training caption names together, in either order. Each colour is in two of them, and named with seven
others. Images of them are in the data with captions that name one colour: the two must be joined by words alone."""

NAMES: dict[str, tuple[str, ...]] = {
    "stripes": ("stripes", "stripes", "striped pattern"),
    "checkers": ("checkers", "checkers", "checkerboard"),
    "dots": ("dots", "dots", "polka dots"),
    "bricks": ("bricks", "bricks", "brick wall"),
    "waves": ("waves", "waves", "wavy lines"),
    "zigzag": ("zigzag", "zigzag", "chevrons"),
    "wood": ("wood", "wood rings", "wood grain"),
    "marble": ("marble", "marble", "marble veins"),
    "scales": ("scales", "scales", "fish scales"),
    "hexagons": ("hexagons", "hexagons", "honeycomb"),
    "grid": ("grid", "grid", "grid lines"),
    "cobblestones": ("cobblestones", "cobblestones", "stone paving"),
    "clouds": ("clouds", "clouds", "camouflage"),
}
"""What each pattern is called, the plain name as often as the others together or more."""

PARTS: dict[str, str] = {
    "stripes": "{b} stripes on {a}",
    "checkers": "{a} and {b} checkers",
    "dots": "{b} dots on {a}",
    "bricks": "{a} bricks with {b} mortar",
    "waves": "{b} waves on {a}",
    "zigzag": "{b} zigzag on {a}",
    "wood": "{a} wood with {b} rings",
    "marble": "{a} marble with {b} veins",
    "scales": "{a} scales with {b} edges",
    "hexagons": "{a} hexagons with {b} lines",
    "grid": "{b} grid on {a}",
    "cobblestones": "{a} cobblestones with {b} gaps",
    "clouds": "{b} clouds on {a}",
}
"""Which part of the pattern has which colour: a is the main colour, b the second one."""

WORDINGS: tuple[str, ...] = (
    "{a} and {b} {name}",
    "{a} and {b} {name}",
    "{name} in {a} and {b}",
    "{name}, {a} and {b}",
    "{name}, {a}, {b}",
    "a texture of {a} and {b} {name}",
    "seamless texture of {a} and {b} {name}",
    "a seamless {a} and {b} {name} texture",
    "a {name} pattern, {a} with {b}",
)
VAGUE: tuple[str, ...] = ("{name}", "{a} {name}", "{a} and {b} texture", "{a} and {b}")
"""Wordings that leave something out."""
ONE_COLOUR: tuple[str, ...] = ("{a} {name}", "{a} {name}", "{name} with {b}", "{name}")
"""Wordings for images of held-out pairs."""


def pairs(held_out: bool) -> list[Pair]:
    """All ordered colour pairs (main, second) that are held out of the captions, or all those that are not."""
    return [pair for pair in permutations(PALETTE, 2) if (frozenset(pair) in HELD_OUT) == held_out]


def plain(pattern: str, colours: Pair) -> str:
    """The first wording: "red and white bricks"."""
    return WORDINGS[0].format(a=colours[0], b=colours[1], name=NAMES[pattern][0])


def caption(rng: np.random.Generator, pattern: str, colours: Pair) -> str:
    """Word one caption at random.

    Args:
        pattern: a key of PATTERNS.
        colours: main colour and second colour.
    """
    a, b = colours
    kind = rng.random()
    if kind < 0.2:
        return PARTS[pattern].format(a=a, b=b)
    wordings = VAGUE if kind > 0.95 else WORDINGS
    names = NAMES[pattern]
    return wordings[rng.integers(len(wordings))].format(a=a, b=b, name=names[rng.integers(len(names))])


def training_caption(rng: np.random.Generator, pattern: str, colours: Pair) -> str:
    """`caption`, or of a held-out pair one that names one colour at most."""
    if frozenset(colours) not in HELD_OUT:
        return caption(rng, pattern, colours)
    wording, names = ONE_COLOUR[rng.integers(len(ONE_COLOUR))], NAMES[pattern]
    return wording.format(a=colours[0], b=colours[1], name=names[rng.integers(len(names))])


def vocabulary() -> list[str]:
    """Every word that captions are made of, sorted."""
    texts = [
        *WORDINGS,
        *VAGUE,
        *ONE_COLOUR,
        *PARTS.values(),
        *(name for names in NAMES.values() for name in names),
        *PALETTE,
        *PATTERNS,
    ]
    bare = " ".join(texts).replace(",", " ").replace("{a}", " ").replace("{b}", " ").replace("{name}", " ")
    return sorted(set(bare.split()))
