"""Images divided by the images that act: the same numbers, no pixel twice, less to compute."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tessera.ip_adapter import areas
from tessera.ip_adapter.areas import split
from tessera.ip_adapter.attend import COMBINES, Patches, add_images, add_patches, attend, join_images
from tessera.ip_adapter.masks import MasksOnGrids
from torch import Tensor


def _areas(n: int, length: int, seed: int) -> Tensor:
    """Masks that are 0 in most places, and overlap."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(n, length, generator=generator)
    where = torch.rand(n, 8, generator=generator).repeat_interleave(-(-length // 8), dim=1)[:, :length]
    return mask * (where < 0.4)


@given(st.sampled_from(COMBINES), st.integers(1, 5), st.integers(1, 60), st.integers(0, 999), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_every_image_is_looked_at_once_wherever_it_acts(
    combine: str, n: int, length: int, seed: int, call: int
) -> None:
    mask = _areas(n, length, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(areas, "CALL", call)
        parts = split(mask, combine, 4, 8)
    looks = torch.zeros(n, length)
    for pixels, images in parts:
        looks[torch.tensor(images)[:, None], torch.arange(length) if pixels is None else pixels] += 1
    assert looks.max() <= 1
    assert looks[mask > 0].eq(1).all()
    if combine != "sum":  # Images that compete are looked at together.
        for pixels, images in parts:
            there = mask if pixels is None else mask[:, pixels]
            assert not there[[i for i in range(n) if i not in images]].any()


@pytest.mark.parametrize("combine", COMBINES)
def test_parts_together_are_the_whole(combine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "CALL", 0)
    monkeypatch.setattr(areas, "GATHER", 0)
    q, mask = torch.randn(2, 64, 12, dtype=torch.float64), _areas(4, 64, 5).double()
    mask[3] = 0.5
    keys, values = ([torch.randn(2, 3, 12, dtype=torch.float64) for _ in range(4)] for _ in range(2))
    ((joined, _),) = join_images(keys, values, [0.9, 0.5, 0.3, 0.1], 3, combine)
    mask = mask[:3] if combine == "concat" else mask
    joined = joined.select(range(len(mask)))
    parts = split(mask, combine, 3, 12)
    assert any(pixels is not None for pixels, _ in parts)
    out = torch.zeros_like(q)
    for pixels, images in parts:
        seen = mask[images] if pixels is None else mask[images][:, pixels]
        add_images(out, q, joined.select(images), seen, pixels=pixels)
    torch.testing.assert_close(out, attend(q, joined, mask))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("largest", [4, 2**17])
def test_patches_are_the_images_one_by_one(soft: bool, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[add_patches.__module__], "LARGEST", largest)
    for name in ("CALL", "GATHER"):
        monkeypatch.setattr(areas, name, 0)
    q, mask = torch.randn(2, 64, 12, dtype=torch.float64), _areas(4, 64, 5).double()
    mask = mask if soft else mask.ceil()
    masks = MasksOnGrids([each.view(8, 8) for each in mask], torch.float64)
    masks.add_grid((8, 8))
    masks.add_parts((8, 8), (0, 1, 3), ("sum", 3, 12), lambda given: split(given, "sum", 3, 12))
    keys, values = ([torch.randn(2, 3, 12, dtype=torch.float64) for _ in range(4)] for _ in range(2))
    ((joined, _),) = join_images(keys, values, [0.9, 0.5, 0.3, 0.1], 3, "sum")
    joined = joined.select([0, 1, 3])
    ((patches, there),) = masks.parts((8, 8), (0, 1, 3), ("sum", 3, 12))
    assert isinstance(patches, Patches)
    assert (there is None) == (not soft)
    found = add_patches(torch.zeros_like(q), q, joined, patches, there, row=1)
    torch.testing.assert_close(found, attend(q, joined, mask[[0, 1, 3]], row=1))


def test_areas_are_divided_and_masks_that_are_none_are_not() -> None:
    ten = torch.nn.functional.one_hot(torch.arange(4096) // 410).T.float()
    for combine in ("sum", "share"):
        parts = split(ten, combine, 16, 320)
        assert sorted(images for _, images in parts) == [[i] for i in range(10)]
        assert all(pixels is not None and len(pixels) in (406, 410) for pixels, _ in parts)
    for mask in (torch.rand(10, 4096), (torch.rand(10, 4096) < 0.9).float(), torch.ones(1, 4096)):
        for combine in COMBINES:
            assert split(mask, combine, 16, 320) == [(None, list(range(len(mask))))]


def test_an_image_without_a_mask_leaves_the_others_their_areas() -> None:
    mask = torch.zeros(3, 4096)
    mask[0], mask[1, :400], mask[2, 300:700] = 1, 1, 1
    parts = [(None if pixels is None else len(pixels), images) for pixels, images in split(mask, "sum", 16, 320)]
    assert parts == [(400, [1]), (400, [2]), (None, [0])]


def test_images_that_act_nowhere_are_in_no_part() -> None:
    mask = torch.zeros(2, 4096)
    mask[0, :64] = 1
    for combine in ("sum", "share"):
        ((pixels, images),) = split(mask, combine, 16, 320)
        assert pixels is not None
        assert (len(pixels), images) == (64, [0])
        assert split(mask[1:], combine, 16, 320) == []


def test_small_images_are_not_divided() -> None:
    """Where a call costs more than the pixels, one call takes them all."""
    two = torch.zeros(2, 64)
    two[0, :32], two[1, 32:] = 1, 1
    for combine in COMBINES:
        assert split(two, combine, 4, 32) == [(None, [0, 1])]
