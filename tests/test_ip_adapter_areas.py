"""Pictures divided by the images that act: the same numbers, no pixel twice, less to compute."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tessera.ip_adapter import areas
from tessera.ip_adapter.areas import split
from tessera.ip_adapter.attend import add_images, attend, make_banks, only
from torch import Tensor


def _areas(n: int, length: int, seed: int) -> Tensor:
    """Masks that are 0 in most places, and overlap."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(n, length, generator=generator)
    where = torch.rand(n, 8, generator=generator).repeat_interleave(-(-length // 8), dim=1)[:, :length]
    return mask * (where < 0.4)


@given(st.integers(1, 5), st.integers(1, 60), st.integers(0, 999), st.integers(0, 1000), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_every_pixel_is_in_one_part_with_all_that_act_on_it(n: int, length: int, seed: int, call: int, g: int) -> None:
    mask = _areas(n, length, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(areas, "CALL", call)
        patch.setattr(areas, "GATHER", g)
        parts = split(mask, 4, 8)
    if parts is None:
        return
    pixels = [pixel for part, _ in parts for pixel in part.tolist()]
    assert sorted(pixels) == torch.nonzero(mask.amax(0) > 0).flatten().tolist()
    for part, images in parts:
        others = [i for i in range(n) if i not in images]
        assert not mask[others][:, part].any()


@pytest.mark.parametrize("combine", ["sum", "share"])
def test_parts_together_are_the_whole(combine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "CALL", 0)
    monkeypatch.setattr(areas, "GATHER", 0)
    q, mask = torch.randn(2, 64, 12, dtype=torch.float64), _areas(4, 64, 5).double()
    keys, values = ([torch.randn(2, 3, 12, dtype=torch.float64) for _ in range(4)] for _ in range(2))
    ((bank, _),) = make_banks(keys, values, [0.9, 0.5, 0.3, 0.1], 3, combine)
    parts = split(mask, 3, 12)
    assert parts is not None
    assert len(parts) > 1
    out = torch.zeros_like(q)
    for pixels, images in parts:
        add_images(out, q, only(bank, images), mask[images][:, pixels], pixels)
    torch.testing.assert_close(out, attend(q, bank, mask))


def test_areas_are_divided_and_masks_that_are_none_are_not() -> None:
    grid = torch.arange(4096) // 410
    ten = torch.nn.functional.one_hot(grid).T.float()
    parts = split(ten, 16, 320)
    assert parts is not None
    assert len(parts) == 10
    assert all(len(images) == 1 for _, images in parts)
    assert split(torch.rand(10, 4096), 16, 320) is None
    assert split((torch.rand(10, 4096) < 0.5).float(), 16, 320) is None
    assert split(torch.ones(1, 4096), 16, 320) is None


def test_small_parts_are_joined() -> None:
    """Where a call costs more than the pixels, one call takes them all."""
    two = torch.zeros(2, 64)
    two[0, :32], two[1, 32:] = 1, 1
    assert split(two, 4, 32) is None
    one = torch.zeros(1, 4096)
    one[0, :64] = 1
    ((pixels, images),) = split(one, 16, 320) or []
    assert (len(pixels), images) == (64, [0])
