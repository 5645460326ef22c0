"""Formulas of guidance against their definitions in float64, and joint attention against two separate ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from margins import within
from tessera.guidance.formulas import ALPHA, TAU, Sequence, cfg, joint_nag, nag, soft_cfg
from torch import Tensor
from torch.nn import functional as F

TOKENS = Sequence(3, 5, 8)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("function", [cfg, soft_cfg, nag])
def test_neither_strength_zero_nor_an_equal_negative_changes_anything(function: object) -> None:
    positive, negative = _random(2, 4, 6, 6), _random(2, 4, 6, 6, seed=1)
    assert callable(function)
    for found in (function(positive, negative, 0.0), function(positive, positive.clone(), 7.0)):
        torch.testing.assert_close(found, positive, rtol=1e-12, atol=1e-12)


def test_cfg_is_the_scale_one_more_than_the_strength() -> None:
    positive, negative = _random(2, 4, 6, 6), _random(2, 4, 6, 6, seed=1)
    torch.testing.assert_close(cfg(positive, negative, 2.5), negative + 3.5 * (positive - negative))


@given(st.floats(0.0, 10.0), st.floats(0.01, 100.0))
def test_nag_follows_the_paper_and_stays_below_its_bound(strength: float, far: float) -> None:
    positive, negative = _random(3, 16), far * _random(3, 16, seed=1)
    extrapolated = (1 + strength) * positive - strength * negative
    ratio = extrapolated.abs().sum(-1) / positive.abs().sum(-1)
    limited = extrapolated * (ratio.clamp(max=TAU) / ratio)[:, None]
    found = nag(positive, negative, strength)
    torch.testing.assert_close(found, ALPHA * limited + (1 - ALPHA) * positive)
    assert (found.abs().sum(-1) <= (ALPHA * TAU + 1 - ALPHA) * positive.abs().sum(-1) + 1e-9).all()


@given(st.floats(0.0, 10.0))
def test_soft_cfg_never_lengthens_and_leaves_the_positive_direction(strength: float) -> None:
    positive, negative = _random(2, 4, 6, 6), _random(2, 4, 6, 6, seed=1)
    found = soft_cfg(positive, negative, strength)
    assert (found.flatten(1).norm(dim=1) <= positive.flatten(1).norm(dim=1) * (1 + 1e-9)).all()
    across = found - (found * positive).sum((1, 2, 3), keepdim=True) / positive.square().sum((1, 2, 3), True) * positive
    away = positive - negative
    assert strength < 1e-3 or (across * away).sum() > 0


def test_black_is_guided_without_a_division_by_zero() -> None:
    for function in (cfg, soft_cfg, nag):
        assert function(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), 3.0).isfinite().all()


@pytest.mark.parametrize("function", [soft_cfg, nag])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_long_tokens_are_guided_in_half_precision_as_in_double(
    function: Callable[[Tensor, Tensor, float], Tensor], dtype: torch.dtype
) -> None:
    """Norms of Flux's tokens and of latents are beyond what half precision holds."""
    positive, negative = (30 * _random(1, 2, 48, 3072, seed=seed).to(dtype) for seed in (0, 1))
    found, expected = function(positive, negative, 20.0), function(positive.double(), negative.double(), 20.0)
    assert found.dtype == dtype
    assert within((found.double() - expected).norm() / expected.norm(), 4 * torch.finfo(dtype).eps)


def _two_attentions(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, strength: float) -> Tensor:
    """Both texts with an image of their own each, outputs of the image mixed."""
    n, p = TOKENS.negative, TOKENS.negative + TOKENS.text
    without = [torch.cat([part[:, :, :n], part[:, :, p:]], 2) for part in (q, k, v)]
    if mask is None:
        other = None
    else:
        other = torch.ones(TOKENS.negative + TOKENS.image, TOKENS.negative + TOKENS.image, dtype=torch.bool)
        other[n:, n:] = mask[TOKENS.text :, TOKENS.text :]
    positive = _attend(q[:, :, n:], k[:, :, n:], v[:, :, n:], mask)
    against = _attend(without[0], without[1], without[2], other)
    image = nag(positive[:, TOKENS.text :], against[:, n:], strength)
    return torch.cat([against[:, :n], positive[:, : TOKENS.text], image], 1)


@pytest.mark.parametrize("masked", [False, True])
def test_joint_attention_is_two_attentions(masked: bool) -> None:
    q, k, v = (_random(2, 3, TOKENS.length, 4, seed=seed) for seed in range(3))
    mask = _random(13, 13, seed=4) > -0.5 if masked else None
    if mask is not None:
        mask.fill_diagonal_(True)
    found = joint_nag(_attend, q, k, v, mask, TOKENS, 4.0)
    torch.testing.assert_close(found, _two_attentions(q, k, v, mask, 4.0))


@pytest.mark.parametrize("shape", [(13, 13), (1, 1, 1, 13), (2, 1, 1, 13), (2, 1, 13, 13)])
@pytest.mark.parametrize("added", [False, True])
def test_masks_of_every_shape_mean_the_same(shape: tuple[int, ...], added: bool) -> None:
    q, k, v = (_random(2, 3, TOKENS.length, 4, seed=seed) for seed in range(3))
    seen = (torch.arange(13) != 6).expand(13, 13)
    mask = (seen[:1] if shape[-2] == 1 else seen).expand(shape)
    if added:
        mask = torch.where(mask, 0.0, -torch.inf).double()
    found = joint_nag(_attend, q, k, v, mask, TOKENS, 4.0)
    n = TOKENS.negative
    torch.testing.assert_close(found[:, n:], _two_attentions(q, k, v, seen, 4.0)[:, n:])


def test_rows_that_are_not_guided_stay_exactly_what_they_are() -> None:
    q, k, v = (_random(3, 3, TOKENS.length, 4, seed=seed) for seed in range(3))
    mask = _random(3, 1, 13, 13, seed=4) > -1.0
    n, rows, others = TOKENS.negative, [1], [0, 2]
    found = joint_nag(_attend, q, k, v, mask, TOKENS, 4.0, rows)
    plain = _attend(q[:, :, n:], k[:, :, n:], v[:, :, n:], mask)
    assert torch.equal(found[others][:, n:], plain[others])
    alone = joint_nag(_attend, q[rows], k[rows], v[rows], mask[rows], TOKENS, 4.0)
    torch.testing.assert_close(found[rows], alone)
