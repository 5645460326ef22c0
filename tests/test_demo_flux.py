"""The Flux demo model: it draws the colours that are named, and a negative prompt takes one away."""

from __future__ import annotations

import pytest
import torch
from tessera.contract import DEMO_MODELS
from tessera.demo.evaluate_flux import STRENGTHS, Model, clipped, share

ASKED = (
    ("blue and yellow wood", "blue", 5),
    ("orange and black bricks", "orange", 6),
    ("black and red dots", "black", 1),
)


@pytest.fixture(scope="module")
def shares() -> dict[float, list[float]]:
    """For each strength the share of the colour that the negative names."""
    model = Model(DEMO_MODELS / "texture-flux", 10, 3.5, 128)
    found: dict[float, list[float]] = {}
    for strength in STRENGTHS:
        pictures = [model.draw(text, seed, negative, strength) for text, negative, seed in ASKED]
        assert max(map(clipped, pictures)) < 0.2
        found[strength] = [share(picture, asked[1]) for picture, asked in zip(pictures, ASKED, strict=True)]
    return found


def test_named_colours_are_there(shares: dict[float, list[float]]) -> None:
    assert min(shares[0.0]) > 0.1


def test_a_negative_takes_its_colour_away(shares: dict[float, list[float]]) -> None:
    means = [sum(each) for each in shares.values()]
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.5 * means[0]


def test_it_fits_into_a_repository() -> None:
    assert sum(file.stat().st_size for file in (DEMO_MODELS / "texture-flux").rglob("*")) < 20_000_000


def test_guidance_is_an_input() -> None:
    pictures = [Model(DEMO_MODELS / "texture-flux", 4, guidance, 64).draw("red dots", 1) for guidance in (1.0, 6.0)]
    assert not torch.allclose(*pictures, atol=0.05)
