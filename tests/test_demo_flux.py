"""The Flux demo model: it draws the colours that are named, and a negative prompt takes one away."""

from __future__ import annotations

import pytest
import torch
from tessera.contract import DEMO_MODELS
from tessera.demo import train_flux
from tessera.demo.evaluate_flux import STRENGTHS, Model, clipped, share
from tessera.demo.flux_parts import new_transformer, patchify
from tessera.tiling.axes import Axes
from tessera.tiling.torus import torus

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


@pytest.mark.parametrize("axes", [Axes(True, True), Axes(True, False), Axes(False, True)])
def test_training_sees_the_positions_of_seamless_pictures(axes: Axes) -> None:
    transformer = new_transformer()
    ids = patchify(torch.zeros(1, 16, 12, 16))[1]
    plain = transformer.pos_embed(ids)
    with torus(transformer, axes, [(6, 8)]):
        wanted = transformer.pos_embed(ids)
    with train_flux.torus(transformer, 6 if axes.vertical else None, 8 if axes.horizontal else None):
        found = transformer.pos_embed(ids)
    torch.testing.assert_close(found, wanted)
    assert all(torch.equal(a, b) for a, b in zip(transformer.pos_embed(ids), plain, strict=True))
