"""The judge of patterns is blind to colours; the decoder is taught what a torus and a grid of latents take."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tessera.demo.training.classifier import Classifier, shape
from tessera.demo.training.train_decoder import FACTOR, areas, borders, profile
from tessera.tiling.axes import TILINGS


def _two_colours(cover: torch.Tensor, first: list[float], second: list[float]) -> torch.Tensor:
    a, b = (torch.tensor(colour)[None, :, None, None] for colour in (first, second))
    return torch.lerp(a, b, cover)


def test_the_judge_does_not_see_colours() -> None:
    cover = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    strong = _two_colours(cover, [-1.0, -1.0, -1.0], [1.0, 1.0, 0.9])
    faint = _two_colours(cover, [-0.8, -0.4, 0.6], [0.2, -0.6, 0.2])
    torch.testing.assert_close(shape(strong).abs(), shape(faint).abs(), atol=1e-4, rtol=1e-4)
    torch.manual_seed(0)
    judge = Classifier().eval()
    with torch.no_grad():
        torch.testing.assert_close(judge(strong), judge(faint), atol=1e-4, rtol=1e-4)
        assert judge(torch.zeros(1, 3, 64, 64)).isfinite().all()


def test_borders_of_a_torus_are_those_of_another_texture() -> None:
    shown, half = torch.zeros(1, 4, 4, dtype=torch.long), FACTOR // 2
    assert not borders(shown, TILINGS["off"]).any()
    framed = borders(shown, TILINGS["horizontal"])
    assert framed[..., :half].all()
    assert framed[..., -half:].all()
    assert not framed[..., half:-half].any()
    shown[:, 2:] = 1
    middle = borders(shown, TILINGS["off"])[0, 0]
    assert middle[2 * FACTOR - half : 2 * FACTOR + half].all()
    assert int(middle[:, 0].sum()) == FACTOR


def test_areas_hold_four_textures_at_most() -> None:
    rng = np.random.default_rng(0)
    drawn = [areas(8, rng) for _ in range(200)]
    assert {len(each.unique()) for each in drawn} == {1, 2, 4}
    assert max(int(each.max()) for each in drawn) == 3


@pytest.mark.parametrize("turned", [False, True])
def test_a_grid_of_latents_shows_in_the_profile(turned: bool) -> None:
    ramp = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).cumsum(-1).cumsum(-2)
    even = profile(ramp)
    assert even.mean(1) == pytest.approx(torch.ones(4))
    stairs = ramp + 50 * (torch.arange(64) // FACTOR)[None, None, None]
    rows = profile(stairs.mT if turned else stairs)
    first = 2 if turned else 0
    assert (rows[first : first + 2, 0] > 2 * even[first : first + 2, 0]).all()
    torch.testing.assert_close(rows[2 - first : 4 - first], even[2:])
    assert profile(torch.zeros(1, 3, 64, 64)).isfinite().all()
