"""What each conditioning weighs in a prediction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import naming
from tessera.host.sampling import cond_batch, conds


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 20), st.integers(0, 20))
def test_an_area_fades_out_over_eight_cells_at_its_edges_inside_the_image(
    height: int, width: int, top: int, left: int
) -> None:
    """Over a quarter of the area where it is small; the image is 48 x 40, and what is outside of it is cut off."""
    x, sigma = torch.zeros(1, 2, 48, 40), torch.ones(1)
    cond = {"area": (height, width, top, left), "strength": 0.5, "model_conds": {}, "uuid": None}
    piece = cond_batch.piece_of(0, cond, x, sigma)
    assert piece is not None
    sides = [_faded(*side) for side in ((height, top, 48), (width, left, 40))]
    torch.testing.assert_close(piece.mult, 0.5 * torch.outer(*sides).expand_as(piece.mult))


def _faded(length: int, start: int, whole: int) -> torch.Tensor:
    """The weights of an area's cells along one side."""
    length = min(length, whole - start)
    ramp = min(8, length // 4)
    rising = [min(1.0, (i + 1) / ramp) if ramp else 1.0 for i in range(length)]
    before, after = (rising if inside else [1.0] * length for inside in (start > 0, start + length < whole))
    return torch.tensor(before) * torch.tensor(after[::-1])


@pytest.mark.parametrize("area", [(8, 8, 0, 40), (8, 8, 48, 0), ("percentage", 0.5, 0.5, 0.0, 1.0)])
def test_an_area_outside_of_the_image_is_refused(area: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=naming("area", "100%", 100)):
        conds.resolve_area_and_mask({"area": area}, 48, 40, torch.device("cpu"))
    inside = (*area[:-2], 0, 0)
    assert conds.resolve_area_and_mask({"area": inside}, 48, 40, torch.device("cpu"))["area"][2:] == (0, 0)


@pytest.mark.parametrize(("controls", "prompts", "shared"), [("ab", 1, "b"), ("a", 2, "a-"), ("abc", 2, "cb")])
def test_control_of_the_negative_is_that_of_the_last_positive_that_meets_it(
    controls: str, prompts: int, shared: str
) -> None:
    """ComfyUI deals them out in turn; a negative prompt with a network of its own keeps all negatives as they are."""
    positive = [{"control": control, "control_apply_to_uncond": True} for control in controls]
    negative: list[dict[str, Any]] = [{} for _ in range(prompts)]
    conds.share_controls(positive, negative)
    assert "".join(each.get("control", "-") for each in negative) == shared
    own: list[dict[str, Any]] = [{"control": "own"}, {}]
    conds.share_controls(positive, own)
    assert own == [{"control": "own"}, {}]
