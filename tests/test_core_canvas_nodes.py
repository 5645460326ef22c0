"""Core nodes for importing: margins for outpainting, factors, split noise levels, merged tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tessera.host.models.model_base import SD15
from tessera.host.models.token_merging import token_merging
from tessera.host.nodes.canvas import AdjustContrast, ImagePadForOutpaint, ImageScaleBy
from tessera.host.nodes.patches import TomePatchModel
from tessera.host.nodes.sigmas import SplitSigmas
from tessera.host.runtime.patcher import ModelPatcher
from torch import Tensor


def results(output: Any) -> Any:
    return output.result


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(0, 9)] * 4), st.integers(0, 4), st.integers(6, 12), st.integers(6, 12))
def test_margin_fades_as_in_the_obvious_form(
    margin: tuple[int, int, int, int], feathering: int, height: int, width: int
) -> None:
    left, top, right, bottom = margin
    image = torch.rand(2, height, width, 3)
    wider, mask = results(ImagePadForOutpaint.execute(image, left, top, right, bottom, feathering))
    assert wider.shape == (2, height + top + bottom, width + left + right, 3)
    assert torch.equal(wider[:, top : top + height, left : left + width], image)
    expected = torch.ones(wider.shape[1:3])
    for y in range(height):
        for x in range(width):
            ends = [(y, top), (height - y, bottom), (x, left), (width - x, right)]
            near = min([distance for distance, there in ends if there] + [feathering])
            fades = 0 < 2 * feathering < min(height, width)
            expected[top + y, left + x] = ((feathering - near) / feathering) ** 2 if fades else 0.0
    assert torch.allclose(mask, expected[None])


def test_images_are_scaled_by_a_factor() -> None:
    (larger,) = results(ImageScaleBy.execute(torch.rand(2, 5, 7, 3), "lanczos", 1.5))
    assert larger.shape == (2, 8, 10, 3)


def test_contrast_turns_about_middle_grey() -> None:
    image = torch.tensor([0.0, 0.4, 0.5, 0.9]).reshape(1, 1, 4, 1)
    (stronger,) = results(AdjustContrast.execute(image, 1.5))
    assert torch.allclose(stronger.flatten(), torch.tensor([0.0, 0.35, 0.5, 1.0]))


def test_split_levels_meet() -> None:
    high, low = results(SplitSigmas.execute(torch.tensor([3.0, 2.0, 1.0, 0.0]), 1))
    assert (high.tolist(), low.tolist()) == ([3.0, 2.0], [2.0, 1.0, 0.0])


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 7), st.integers(2, 7), st.floats(0, 1))
def test_merged_tokens_are_averaged_and_given_back(height: int, width: int, ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, height * width, 5, generator=generator)
    merge, unmerge = token_merging(tokens, height, width, ratio)
    stay = (height // 2) * (width // 2)
    count = min(height * width - stay, int(height * width * ratio))
    assert merge(tokens).shape == (2, height * width - count, 5)
    constant = torch.full((2, height * width, 3), 0.7)
    assert torch.allclose(unmerge(merge(constant)), constant)
    back = unmerge(merge(tokens))
    # Tokens that nothing was merged into come back as they were.
    assert torch.isclose(back, tokens).all(-1).sum() >= 2 * (height * width - 2 * count)


def test_no_token_is_lost_where_none_is_merged() -> None:
    tokens = torch.randn(1, 20, 4)
    merge, unmerge = token_merging(tokens, 4, 5, 0.0)
    assert torch.equal(unmerge(merge(tokens)), tokens)


def test_equal_tokens_merge_without_a_change() -> None:
    """Each cell is of one colour, so merging three quarters changes nothing."""
    cells = torch.randn(1, 3, 4, 6).repeat_interleave(2, 1).repeat_interleave(2, 2)
    tokens = cells.reshape(1, 48, 6)
    merge, unmerge = token_merging(tokens, 6, 8, 0.75)
    assert merge(tokens).shape[1] == 12
    assert torch.allclose(unmerge(merge(tokens)), tokens, atol=1e-6)


@pytest.fixture
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


def predict(model: ModelPatcher) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 16, generator=generator)
    options = model.model_options["transformer_options"]
    return model.model.apply_model(x, torch.tensor([3.0]), c_crossattn=text, transformer_options=options)


def test_token_merging_changes_a_clone_only(model: ModelPatcher) -> None:
    plain = predict(model)
    (merged,) = results(TomePatchModel.execute(model, 0.5))
    (unmerged,) = results(TomePatchModel.execute(model, 0.0))
    changed = predict(merged)
    assert changed.shape == plain.shape
    assert not torch.allclose(changed, plain, atol=1e-4)
    assert torch.allclose(predict(unmerged), plain, atol=1e-5)
    assert torch.equal(predict(model), plain)
