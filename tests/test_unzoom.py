"""Unzoom: sizes, places, fills and the mask of the margin."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tessera.images.outpaint import FILLS, margins
from tessera.nodes.unzoom import TesseraUnzoom
from torch import Tensor


def unzoomed(image: Tensor, factor: float = 1.5, **settings: object) -> tuple[Tensor, Tensor]:
    return TesseraUnzoom.execute(image, factor, **settings).args  # pyright: ignore[reportArgumentType, reportReturnType]


def image(height: int = 64, width: int = 96, count: int = 1) -> Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(2))


@given(st.integers(8, 2048), st.integers(8, 2048), st.floats(1, 4), st.floats(0, 1), st.floats(0, 1))
def test_margins_are_whole_latents_and_near_the_factor(h: int, w: int, factor: float, x: float, y: float) -> None:
    left, right, top, bottom = margins((h, w), factor, x, y)
    for side, before, after, place in ((w, left, right, x), (h, top, bottom, y)):
        assert before % 8 == after % 8 == 0 and min(before, after) >= 0
        assert abs(side + before + after - side * factor) <= 4
        assert abs(before - (before + after) * place) <= 8


@pytest.mark.parametrize("fill", FILLS)
def test_the_image_is_in_the_middle_unchanged(fill: str) -> None:
    given, (found, mask) = image(count=2), unzoomed(image(count=2), fill=fill)
    assert found.shape == (2, 96, 144, 3) and mask.shape == (1, 96, 144)
    assert torch.equal(found[:, 16:80, 24:120], given)


def test_what_the_margin_holds() -> None:
    given = image()
    grey, edge, mirror = (unzoomed(given, fill=fill)[0] for fill in FILLS)
    assert bool((grey[:, :16] == 0.5).all())
    assert torch.equal(edge[:, :16, 24:120], given[:, :1].expand(-1, 16, -1, -1))
    assert torch.equal(mirror[:, :16, 24:120], given[:, :16].flip(1))
    assert torch.equal(mirror[:, 16:80, :24], given[:, :, :24].flip(2))


def test_a_grey_margin_is_opaque() -> None:
    given = torch.cat((image(), torch.zeros(1, 64, 96, 1)), -1)
    found = unzoomed(given)[0]
    assert torch.equal(found[:, 16:80, 24:120], given)
    assert torch.equal(found[0, 0, 0], torch.tensor([0.5, 0.5, 0.5, 1.0]))


def test_a_margin_wider_than_the_image_is_mirrored_again() -> None:
    given = image(16, 16)
    found = unzoomed(given, 4.0, fill="mirror", x=0.0, y=0.0)[0]
    assert torch.equal(found[:, :16, 16:32], given.flip(2)) and torch.equal(found[:, :16, 32:48], given)


def test_the_mask_fades_into_the_image_alone() -> None:
    mask = unzoomed(image(), feather=8)[1][0]
    assert bool((mask[:16] == 1).all()) and bool((mask[:, :24] == 1).all())
    assert bool((mask[24:72, 32:112] == 0).all())
    fading = mask[16:24, 72]
    assert bool((fading.diff() < 0).all()) and 0 < float(fading[-1]) < float(fading[0]) < 1
    torch.testing.assert_close(mask, mask.flip(0))
    torch.testing.assert_close(mask, mask.flip(1))


def test_a_side_without_a_margin_does_not_fade() -> None:
    mask = unzoomed(image(), feather=8, x=0.0, y=1.0)[1][0]
    assert float(mask[64, :80].max()) == 0 and float(mask[-1, 40]) == 0
    assert bool((mask[:32] == 1).all()) and bool((mask[:, 96:] == 1).all())


@pytest.mark.parametrize("feather", [0, 1, 1024])
def test_the_middle_is_kept_whatever_the_feather_is(feather: int) -> None:
    mask = unzoomed(image(), feather=feather)[1][0]
    assert float(mask[47:49, 71:73].max()) < 0.01
    if feather == 0:
        assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_a_factor_of_one_changes_nothing() -> None:
    found, mask = unzoomed(image(), 1.0)
    assert torch.equal(found, image()) and not mask.any()
