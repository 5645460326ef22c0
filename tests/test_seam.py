"""Seam measures: near 1 on periodic images, large on crops, calm where an edge of the pattern lies on the border."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from margins import within
from tessera.nodes.seam_check import TesseraSeamCheck
from tessera.tiling import seam
from tessera.tiling.axes import TILINGS
from tessera.tiling.roll import offset
from tessera.tiling.wrap import extend, fold
from torch import Tensor


def _noise(size: int, seed: int) -> Tensor:
    """Periodic 1/f noise (1, size, size, 3), mean 0.5."""
    white = torch.randn(size, size, 3, generator=torch.Generator().manual_seed(seed))
    frequency = torch.fft.fftfreq(size)
    radius = torch.hypot(frequency[:, None], frequency[None, :]).clamp_min(1 / size)[..., None]
    field = torch.fft.ifft2(torch.fft.fft2(white, dim=(0, 1)) / radius, dim=(0, 1)).real
    return (0.5 + 0.15 * (field - field.mean()) / field.std()).clamp(0, 1)[None]


def _bricks(mortar_on_border: bool) -> Tensor:
    """A brick wall (1, 128, 128, 3) that repeats, with or without its mortar on the border."""
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    wall = ((y % 16 < 2) | ((x + 16 * (y // 16 % 2)) % 32 < 2)).float()
    grain = torch.rand(128, 128, generator=torch.Generator().manual_seed(0)) * 0.05
    shift = 0 if mortar_on_border else 7
    return (wall * 0.6 + grain).roll((shift, shift), (0, 1))[None, ..., None].expand(-1, -1, -1, 3)


@pytest.mark.parametrize("seed", range(4))
def test_periodic_noise_has_no_seam(seed: int) -> None:
    (found,) = seam.measure(_noise(256, seed))
    for axis in (found.horizontal, found.vertical):
        assert 0.9 < axis.sr < 1.1
        assert axis.cr <= 1.5
        assert not axis.visible


@pytest.mark.parametrize("seed", range(4))
def test_a_crop_has_one_on_both_axes(seed: int) -> None:
    (found,) = seam.measure(_noise(256, seed)[:, :192, :160])
    for axis in (found.horizontal, found.vertical):
        assert axis.sr > 1.5
        assert axis.cr > 3
        assert axis.rank == 1.0
        assert axis.visible


def test_axes_are_told_apart() -> None:
    (found,) = seam.measure(_noise(256, 0)[:, :, :160])
    assert found.horizontal.visible
    assert not found.vertical.visible
    assert found.ratio == found.horizontal.sr


def test_a_faint_step_of_one_sign_is_heard_by_the_signed_runs() -> None:
    image = _noise(256, 0)
    drift = torch.linspace(0, 8 / 255, 256)[None, None, :, None]
    (found,) = seam.measure(image + drift)
    assert found.horizontal.cr > 1.5 > found.horizontal.sr
    assert found.horizontal.visible
    assert "faint seam" in seam.report([found])


def test_mortar_on_the_border_is_no_seam() -> None:
    (found,) = seam.measure(_bricks(mortar_on_border=True))
    assert found.ratio > 10
    for axis in (found.horizontal, found.vertical):
        assert axis.sr_max <= 1.0
        assert axis.rank < 1.0
        assert not axis.visible
    (inside,) = seam.measure(_bricks(mortar_on_border=False))
    assert inside.ratio < 1.5


def test_contrast_drops_out() -> None:
    crop = _noise(256, 1)[:, :100, :100]
    strong, weak = seam.measure(crop)[0], seam.measure(crop * 0.5 + 0.2)[0]
    assert math.isclose(strong.ratio, weak.ratio, rel_tol=1e-3)


def test_formula_against_a_slow_form() -> None:
    image = torch.rand(1, 40, 12, 3, generator=torch.Generator().manual_seed(3))
    columns = [image[0, :, j] - image[0, :, j - 1] for j in range(12)]
    sharp = torch.stack([c.abs().mean() for c in columns])
    faint = torch.stack([c[:32].mean(0).abs().mean() for c in columns])
    (found,) = seam.measure(image)
    assert math.isclose(found.horizontal.sr, sharp[0] / sharp[1:].median(), rel_tol=1e-5)
    assert math.isclose(found.horizontal.sr_max, sharp[0] / sharp[1:].quantile(0.99), rel_tol=1e-5)
    assert math.isclose(found.horizontal.rank, (sharp[1:] < sharp[0]).float().mean(), rel_tol=1e-5)
    assert math.isclose(found.horizontal.cr, faint[0] / faint[1:].median(), rel_tol=1e-5)


def test_a_flat_image_has_no_seam_and_a_lone_step_has() -> None:
    flat = torch.full((1, 8, 8, 3), 0.5)
    assert seam.measure(flat)[0].ratio == 1.0
    ramp = torch.linspace(0, 1, 64)[None, None, :, None].expand(1, 64, 64, 3)
    assert seam.measure(ramp)[0].horizontal.visible


def test_batches_are_measured_one_by_one() -> None:
    images = torch.cat([_noise(128, 0)[:, :100, :100], _noise(100, 1)])
    crop, periodic = seam.measure(images)
    assert crop.horizontal.visible
    assert not periodic.horizontal.visible
    report = seam.report([crop, periodic])
    parts = ("Image 1", "a seam shows", "Image 2", "no seam")
    assert sorted(parts, key=report.index) == list(parts)


@pytest.mark.parametrize(
    ("sr", "sr_max", "cr", "cr_max", "verdict"),
    [
        (1.5, 1.1, 1.5, 1.1, "no seam"),
        (1.6, 1.1, 1.0, 1.0, "not certain"),
        (1.0, 1.0, 1.6, 1.1, "not certain"),
        (1.0, 1.0, 1.6, 1.2, "faint seam"),
        (1.0, 1.0, 1.5, 1.2, "no seam"),
        (3.0, 1.2, 1.0, 1.0, "a seam shows"),
    ],
)
def test_the_verdict_follows_the_measures(sr: float, sr_max: float, cr: float, cr_max: float, verdict: str) -> None:
    found = seam.AxisSeam(sr, sr_max, 0.5, cr, cr_max)
    report = seam.report([seam.Seam(found, found, 0.0, 0, 0)])
    assert [verdict in line for line in report.splitlines()] == [True, True]
    assert found.visible == (verdict in ("faint seam", "a seam shows"))


@pytest.mark.parametrize(("period", "counts"), [(16, True), (8, False)])
def test_repetition_finer_than_an_eighth_of_the_image_is_texture(period: int, counts: bool) -> None:
    """Lines that repeat after `period` of 128 px, without a longer period of their own."""
    tile = torch.rand(128, period, 3, generator=torch.Generator().manual_seed(0)).repeat(1, 128 // period, 1)
    found = seam.measure(tile[None], TILINGS["both"])[0]
    assert found.alike > 0.99
    assert found.right % period == 0 and min(found.right, 128 - found.right) >= 16
    assert (min(found.right, 128 - found.right) == period) is counts


def test_the_rank_is_the_share_of_smaller_steps() -> None:
    """The border's step leads from the last line back to the first."""
    levels = torch.arange(12).cumsum(0).float() / 255
    found = seam.measure(levels.view(1, 1, 12, 1).expand(1, 12, 12, 3), TILINGS["both"])[0]
    assert found.horizontal.rank == 1
    inside = torch.tensor([0, 9, 1, 7, 3, 4, 11, 5]).float() / 40
    found = seam.measure(inside.view(1, 1, 8, 1).expand(1, 8, 8, 3), TILINGS["both"])[0]
    assert found.horizontal.rank == pytest.approx(2 / 7)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_channels_and_dtypes(channels: int, dtype: torch.dtype) -> None:
    image = torch.rand(2, 9, 7, channels).to(dtype)
    assert len(seam.measure(image)) == 2
    assert seam.heat_map(image).shape == (2, 9, 7, 3)


def test_a_image_that_repeats_itself_is_reported() -> None:
    motif = _noise(64, 0)
    (twice,), (once,) = seam.measure(motif.tile(1, 1, 2, 1)), seam.measure(_noise(128, 0))
    assert twice.alike > 0.99
    assert (twice.down, twice.right) == (0, 64)
    assert "moved by 64 px to the right and 0 px down" in seam.report([twice])
    assert once.alike < 0.8
    assert "Repetition" not in seam.report([once])


@pytest.mark.parametrize("kind", ["half_drop", "brick"])
def test_shifted_repeats_are_measured_where_they_meet(kind: str) -> None:
    """A period of a brick lattice, cut from an image of two rows of bricks, has no seam but a straight one."""
    axes, rows = TILINGS[kind], _noise(256, 3)
    wall = rows + rows.roll((128, 128), (1, 2))
    lattice = wall[:, :128] if kind == "brick" else wall.transpose(1, 2)[:, :, :128]
    whole = wall if kind == "brick" else wall.transpose(1, 2)
    torch.testing.assert_close(seam.repeat(lattice, 1 + axes.half_drop, 1 + axes.brick, axes), whole)
    edge = "vertical" if kind == "brick" else "horizontal"
    (shifted,), (straight,) = seam.measure(lattice, axes), seam.measure(lattice)
    assert getattr(straight, edge).visible
    assert not getattr(shifted, edge).visible
    assert seam.heat_map(lattice, axes).mean() < seam.heat_map(lattice).mean()


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_only_the_axis_of_a_frieze_counts(axis: str) -> None:
    """A frieze across an image whose top and bottom do not meet, and the same one turned."""
    across = axis == "horizontal"
    frieze = _noise(256, 0)[:, :160] if across else _noise(256, 0)[:, :, :160]
    tiled, heat, ratio, report = TesseraSeamCheck.execute(frieze, 3, 2, axis).args
    assert TesseraSeamCheck.execute(frieze, 3, 2).args[2] > 1.5
    assert 0.9 < ratio < 1.1
    assert torch.equal(tiled, frieze.repeat(1, 1, 3, 1) if across else frieze.repeat(1, 2, 1, 1))
    assert ("top and bottom" if across else "left and right").capitalize() + " are not meant to meet" in report
    assert f"Where {'left and right' if across else 'top and bottom'} meet: no seam." in report
    grey = frieze.mean(-1, keepdim=True).expand_as(frieze) * 0.4
    moved = grey.roll(128, 2 if across else 1)
    assert float((heat - moved).clamp_min(0).mean()) < 0.005
    crop = frieze[:, :, :200] if across else frieze[:, :200]
    assert TesseraSeamCheck.execute(crop, 3, 2, axis).args[2] > 1.5


def test_the_heat_of_a_frieze_is_smoothed_inside_it() -> None:
    """A bright step at the top of the seam does not glow at the bottom, which it does not meet."""
    frieze = torch.full((1, 64, 64, 3), 0.5)
    frieze[:, :6, :32] = 1.0
    heat = seam.heat_map(frieze, TILINGS["horizontal"])[0, ..., 0] - 0.5 * 0.4
    assert float(heat[:6, 32].min()) > 0.5
    assert within(heat[32:, :].abs().max(), 1e-6)


def test_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="1 x 9 px"):
        seam.measure(torch.rand(1, 9, 1, 3))


def test_heat_glows_on_the_cross_of_a_crop_only() -> None:
    crop, periodic = _noise(256, 2)[:, :128, :128], _noise(128, 2)
    glow = (seam.heat_map(crop)[0, ..., 0] - offset(crop, 0.5, 0.5)[0].mean(-1) * 0.4).clamp_min(0)
    assert glow[64].mean() > 0.2
    assert glow[:, 64].mean() > 0.2
    assert glow[:60, :60].mean() < 0.02
    calm = (seam.heat_map(periodic)[0, ..., 0] - offset(periodic, 0.5, 0.5)[0].mean(-1) * 0.4).clamp_min(0)
    assert calm.mean() < 0.02


def test_repeat_lays_copies_side_by_side() -> None:
    image = torch.rand(2, 3, 4, 3)
    tiled = seam.repeat(image, columns=3, rows=2)
    assert tiled.shape == (2, 6, 12, 3)
    assert torch.equal(tiled[:, 3:, 8:], image)


def test_offset_by_half_twice_and_by_a_whole() -> None:
    image = torch.rand(1, 6, 8, 3)
    assert torch.equal(offset(offset(image, 0.5, 0.5), 0.5, 0.5), image)
    assert torch.equal(offset(image, 1.0, 1.0), image)
    assert torch.equal(offset(image, 0.25, 0.0)[:, :, 2], image[:, :, 0])
    assert torch.equal(offset(image, 0.0, 0.5)[:, 3], image[:, 0])


sizes = st.integers(1, 12)


@settings(max_examples=80, deadline=None)
@given(height=sizes, width=sizes, tiling=st.sampled_from(["both", "half_drop", "brick"]), data=st.data())
def test_folding_a_continued_image_gives_it_back(height: int, width: int, tiling: str, data: st.DataObject) -> None:
    height, width = (2 * height, 2 * width) if tiling != "both" else (height, width)
    down, across = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    image = torch.rand(2, 3, height, width)
    margin = extend(image, TILINGS[tiling], down, across)
    tiled = seam.repeat(image.movedim(1, -1), 2, 2, TILINGS[tiling]).movedim(-1, 1)
    assert torch.equal(margin, tiled[..., : height + down, : width + across])
    torch.testing.assert_close(fold(margin, TILINGS[tiling], down, across), image)


def test_folding_continues_over_the_border() -> None:
    line = torch.arange(12.0).view(1, 1, 1, 12)
    folded = fold(line, TILINGS["both"], 0, 4)[0, 0, 0]
    assert folded[0] - folded[-1] == 1.0
    assert folded.tolist() == [8.0, 7.0, 6.0, 5.0, 4.0, 5.0, 6.0, 7.0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_no_texture_without_a_seam(value: float) -> None:
    image = _noise(32, 0).index_fill(1, torch.tensor([3]), value)
    with pytest.raises(ValueError, match="not finite"):
        TesseraSeamCheck.execute(image)
