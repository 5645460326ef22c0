"""The Flux demo model: it draws the colours that are named, and a negative prompt takes one away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tessera.contract.demo import DEMO_MODELS
from tessera.demo.training import negative_table, train_flux
from tessera.demo.training.captions import HELD_OUT
from tessera.demo.training.evaluate_flux import STRENGTHS, Model, clipped, share
from tessera.demo.training.flux_parts import new_transformer, new_vae, patchify
from tessera.demo.training.flux_pool import CUTS, encode_repeating
from tessera.demo.training.textures import PALETTE
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
        images = [model.draw(text, seed, negative, strength) for text, negative, seed in ASKED]
        assert max(map(clipped, images)) < 0.2
        found[strength] = [share(image, asked[1]) for image, asked in zip(images, ASKED, strict=True)]
    return found


def test_named_colours_are_there(shares: dict[float, list[float]]) -> None:
    assert min(shares[0.0]) > 0.1


def test_a_negative_takes_its_colour_away(shares: dict[float, list[float]]) -> None:
    means = [sum(each) for each in shares.values()]
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.5 * means[0]


def test_the_defaults_take_more_of_it_than_those_of_old_workflows() -> None:
    model, settings = Model(DEMO_MODELS / "texture-flux", 10, 3.5, 128), negative_table.defaults()
    left = {
        name: [share(model.draw(text, seed, negative, 4.0, **acts), negative) for text, negative, seed in ASKED]
        for name, acts in (("new", settings), ("old", settings | negative_table.FORMER))
    }
    assert all(new < old for new, old in zip(left["new"], left["old"], strict=True))
    assert sum(left["new"]) < 0.7 * sum(left["old"])


@pytest.mark.parametrize("held_out", [True, False])
def test_prompts_that_measure_a_scale_are_not_those_that_it_was_chosen_on(held_out: bool) -> None:
    asked = negative_table.prompts(64, held_out)
    assert len(set(asked)) == 64 and {frozenset(pair) in HELD_OUT for _, *pair in asked} == {held_out}


def test_it_fits_into_a_repository() -> None:
    assert sum(file.stat().st_size for file in (DEMO_MODELS / "texture-flux").rglob("*")) < 20_000_000


def test_guidance_is_an_input() -> None:
    """The stronger it is, the more of an image has the colour that is asked for."""
    models = [Model(DEMO_MODELS / "texture-flux", 4, guidance, 64) for guidance in (1.0, 3.5, 6.0)]
    for seed in (1, 3):
        weak, medium, strong = (share(model.draw("red dots", seed), "red") for model in models)
        assert weak < medium < strong
        assert strong > weak + 0.05


@pytest.mark.parametrize("axes", [Axes(True, True), Axes(True, False), Axes(False, True)])
def test_training_sees_the_positions_of_seamless_images(axes: Axes) -> None:
    transformer = new_transformer()
    ids = patchify(torch.zeros(1, 16, 12, 16))[1]
    plain = transformer.pos_embed(ids)
    with torus(transformer, axes, [(6, 8)]):
        wanted = transformer.pos_embed(ids)
    with train_flux.torus(transformer, 6 if axes.vertical else None, 8 if axes.horizontal else None):
        found = transformer.pos_embed(ids)
    torch.testing.assert_close(found, wanted)
    assert all(torch.equal(a, b) for a, b in zip(transformer.pos_embed(ids), plain, strict=True))


def test_a_window_shows_half_a_torus_at_most_and_whole_ones_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    seen = [train_flux.layout(rng, 900, 1000) for _ in range(2000)]
    whole = [each for each in seen if each.whole]
    assert len(whole) / len(seen) == pytest.approx(train_flux.WHOLE, abs=0.03)
    windows = [each for each in seen if not each.whole and (each.rows or each.columns)]
    assert len(windows) / len(seen) == pytest.approx(train_flux.TURNED, abs=0.03)
    assert all(each.side <= (period or each.side) for each in windows for period in (each.rows, each.columns))


def test_textures_that_repeat_are_encoded_without_edges() -> None:
    torch.manual_seed(0)
    vae = new_vae()
    stripes = torch.linspace(0, 6.283, 65)[:-1].sin().expand(1, 3, 64, 64)
    latents = encode_repeating(vae, stripes).float()
    assert latents.shape == (CUTS, 16, 8, 8)
    torch.testing.assert_close(latents, latents[:, :, :1].expand_as(latents), atol=0.02, rtol=0.02)
    with torch.no_grad():
        cut_off = vae.encode(stripes).latent_dist.mode()
    assert (cut_off - cut_off[:, :, 4:5]).abs().max() > 0.1 * cut_off.std()


def test_whole_tori_are_moved_and_nothing_of_them_is_cut() -> None:
    tori = torch.arange(2 * 16 * 16 * 16).float().reshape(2, 16, 16, 16)

    def prompts(clip: object, t5: object, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(texts), 1, 1), torch.zeros(len(texts), 1)

    shown = [("dots", "red", "blue"), ("grid", "black", "white")]
    alone = dict.fromkeys(PALETTE, torch.full((24, 16, 20, 20), -1.0))
    batches = train_flux.Batches(tori, alone, (tori, shown), object(), object(), prompts, 0)  # pyright: ignore[reportArgumentType]
    clean = batches.draw(train_flux.Layout(16, 24, 8, 8), 0.0)[0]
    sets = [set(each.flatten().tolist()) for each in (*tori, alone["red"])]
    assert all(set(each.flatten().tolist()) in sets for each in clean)
    assert len({float(each[0, 0, 0]) for each in clean}) > 12
