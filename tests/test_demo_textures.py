"""The demo's drawn textures and captions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tessera.demo.training.captions import HELD_OUT, caption, pairs, plain, training_caption
from tessera.demo.training.measures import dominating
from tessera.demo.training.textures import PALETTE, PATTERNS, draw
from tessera.demo.training.tokens import byte_symbols, merges
from tessera.tiling.seam import measure

SIZE = 128
HELD = pairs(held_out=True)


def drawn(pattern: str, count: int, colours: tuple[str, str] = ("red", "white"), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([draw(rng, pattern, colours, SIZE) for _ in range(count)])


def test_there_are_ten_patterns_and_eight_colours() -> None:
    assert len(PATTERNS) >= 10 and len(PALETTE) >= 8


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_seed_draws_one_image(pattern: str) -> None:
    first, again, other = drawn(pattern, 1), drawn(pattern, 1), drawn(pattern, 1, seed=1)
    assert first.shape == (1, SIZE, SIZE, 3) and first.dtype == np.uint8
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_crops_do_not_tile(pattern: str) -> None:
    ratios = [seam.ratio for seam in measure(torch.from_numpy(drawn(pattern, 16)).float() / 255)]
    assert np.median(ratios) > 1.5


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_two_colours_dominate(pattern: str) -> None:
    rng = np.random.default_rng(0)
    found = [dominating(draw(rng, pattern, HELD[i], SIZE)) == set(HELD[i]) for i in rng.permutation(len(HELD))[:10]]
    assert np.mean(found) >= 0.9


def test_palette_colours_are_told_apart() -> None:
    values = np.array(list(PALETTE.values()), float)
    apart = np.linalg.norm(values[:, None] - values, axis=-1) + 1e3 * np.eye(len(values))
    assert apart.min() > 75


def test_every_colour_is_named_with_others_in_training() -> None:
    named = {frozenset(pair) for pair in pairs(held_out=False)}
    assert named.isdisjoint(HELD_OUT)
    assert len(named) + len(HELD_OUT) == len(PALETTE) * (len(PALETTE) - 1) / 2
    for colour in PALETTE:
        assert sum(colour in pair for pair in named) >= 5


@pytest.mark.parametrize("pair", [*HELD, *pairs(held_out=False)])
def test_no_training_caption_names_a_held_out_pair(pair: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    for pattern in PATTERNS:
        for _ in range(5):
            words = set(training_caption(rng, pattern, pair).replace(",", " ").split())
            assert frozenset(words & PALETTE.keys()) not in HELD_OUT


def test_captions_vary_and_most_say_everything() -> None:
    rng = np.random.default_rng(0)
    texts = [caption(rng, "dots", ("red", "white")) for _ in range(400)]
    assert len(set(texts)) > 10
    assert np.mean(["red" in t and "white" in t for t in texts]) > 0.9
    assert plain("dots", ("red", "white")) == "red and white dots"


def test_merges_make_every_word_one_token() -> None:
    learned = merges(["brick", "bricks", "black"])
    assert {a + b for a, b in learned} >= {"brick</w>", "bricks</w>", "black</w>"}
    assert len(set(byte_symbols())) == 256
