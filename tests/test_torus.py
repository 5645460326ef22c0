"""Torus RoPE: transformers take the far edge for a neighbour, only images are turned, nothing stays behind."""

from __future__ import annotations

import math
from contextlib import nullcontext
from random import Random
from statistics import median
from typing import Any

import pytest
import tiny_models
import torch
from diffusers.models.transformers.transformer_flux import FluxPosEmbed
from hypothesis import given, settings
from hypothesis import strategies as st
from margins import within
from naming import naming
from tessera.host.models.architectures import build_flux
from tessera.host.models.model_base import Flux
from tessera.host.models.rotary import ComplexPosEmbed
from tessera.tiling.axes import TILINGS, Axes
from tessera.tiling.circular import NotPeriodicError
from tessera.tiling.torus import Grid, find_grids, torus, torus_angles
from torch import Tensor, nn

BOTH = TILINGS["both"]
SEEDS = 12
SIDE = 16


class EmbedND(nn.Module):
    """ComfyUI's embedder: rotation matrices (B, 1, N, D / 2, 2, 2) of positions (B, N, A)."""

    def __init__(self, theta: int, axes_dim: list[int]) -> None:
        super().__init__()
        self.theta, self.axes_dim = theta, axes_dim

    def forward(self, ids: Tensor) -> Tensor:
        angles = [
            ids[..., i, None].double() * self.theta ** -(torch.arange(0, dim, 2).double() / dim)
            for i, dim in enumerate(self.axes_dim)
        ]
        turn = torch.cat(angles, dim=-1)
        return torch.stack((turn.cos(), -turn.sin(), turn.sin(), turn.cos()), -1).unflatten(-1, (2, 2))[:, None].float()


class HiDreamEmbedND(nn.Module):
    """The same, with the axis of heads behind the tokens."""

    def __init__(self, theta: int, axes_dim: list[int]) -> None:
        super().__init__()
        self.theta, self.axes_dim = theta, axes_dim

    def forward(self, ids: Tensor) -> Tensor:
        return EmbedND(self.theta, self.axes_dim)(ids).movedim(1, 2)


HiDreamEmbedND.__name__ = "EmbedND"


def image(height: int, width: int, first: float = 0.0, index: float = 0.0, step: float = 1.0) -> Tensor:
    """Positions (height * width, 3) of an image's tokens."""
    rows, columns = torch.arange(height) * step + first, torch.arange(width) * step + first
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    return torch.cat((torch.full((height, width, 1), index), place), dim=-1).flatten(0, 1)


def flux(seed: int) -> Flux:
    """A random Flux of one double and two single blocks."""
    return Flux(build_flux(tiny_models.flux_weights(seed), torch.float32, tiny_models.FLUX))


def draw(model: Flux, axes: Axes, seed: int) -> Tensor:
    """Token means (16, SIDE, SIDE) of what the model makes of a constant latent: all structure is positional."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 16, 1, 1, generator=random).expand(1, 16, 2 * SIDE, 2 * SIDE).contiguous()
    text, pooled = torch.randn(1, 7, 32, generator=random), torch.randn(1, 64, generator=random)
    with torch.no_grad(), torus(model.diffusion_model, axes, [(SIDE, SIDE)]) if any(axes) else nullcontext():
        out = model.apply_model(x, torch.tensor([0.7]), c_crossattn=text, y=pooled, guidance=torch.tensor([3.5]))
    return out[0].unflatten(1, (SIDE, 2)).unflatten(3, (SIDE, 2)).mean((2, 4))


def border_ratio(tokens: Tensor, dim: int, shifted: bool) -> float:
    """Step across the border, where the repeat may lie half a side further on / mean step inside."""
    other = 3 - dim
    before = tokens.roll(1, dim)
    if shifted:
        first = before.select(dim, 0)
        first.copy_(first.roll(SIDE // 2, 1))
    steps = (tokens - before).abs().mean((0, other))
    return float(steps[0] / steps[1:].mean())


@pytest.fixture(scope="module")
def ratios() -> dict[str, tuple[float, float]]:
    """Median over random models of the ratio along (width, height), for each tiling."""
    models = [flux(seed) for seed in range(SEEDS)]
    found = {}
    for name, axes in TILINGS.items():
        drawn = [draw(model, axes, seed) for seed, model in enumerate(models)]
        found[name] = (
            median(border_ratio(d, 2, axes.half_drop) for d in drawn),
            median(border_ratio(d, 1, axes.brick) for d in drawn),
        )
    return found


def test_positional_seams_vanish_along_the_axes_that_wrap_only(ratios: dict[str, tuple[float, float]]) -> None:
    for name, (across, down) in ratios.items():
        for ratio, wraps in ((across, TILINGS[name].horizontal), (down, TILINGS[name].vertical)):
            assert 0.6 < ratio < 1.6 if wraps else ratio > 2.5, (name, ratios)


@pytest.mark.parametrize("tiling", ["both", "horizontal", "vertical"])
@pytest.mark.parametrize("kind", [EmbedND, FluxPosEmbed])
def test_only_bands_of_wrapping_axes_and_tokens_of_images_change(kind: type[nn.Module], tiling: str) -> None:
    embedder, axes = kind(10000, [16, 56, 56]), TILINGS[tiling]
    ids = torch.cat((torch.zeros(5, 3), image(6, 9), image(3, 4, index=1)))
    ids = ids[None] if kind is EmbedND else ids
    plain = embedder(ids)
    with torus(embedder, axes, [(6, 9), (3, 4)]):
        turned = embedder(ids)
    if kind is EmbedND:
        plain, turned = plain[0, 0, :, :, :, 0].flatten(1), turned[0, 0, :, :, :, 0].flatten(1)
    else:
        plain, turned = torch.cat(plain, 0).unflatten(0, (2, -1)), torch.cat(turned, 0).unflatten(0, (2, -1))
        plain, turned = plain.movedim(0, 1).flatten(1), turned.movedim(0, 1).flatten(1)
    same = (plain == turned).all(0)
    assert torch.equal(plain[:5], turned[:5])
    assert same.float().mean() >= 1 - (sum(axes) * 56) / 128
    for start, stop in ((5, 59), (59, 71)):
        assert not torch.equal(plain[start:stop], turned[start:stop])


def test_all_layouts_hold_the_same_angles() -> None:
    ids = torch.cat((torch.zeros(2, 3), image(4, 6)))
    matrices, pairs = EmbedND(10000, [16, 56, 56]), FluxPosEmbed(10000, [16, 56, 56])
    with torus(matrices, BOTH, [(4, 6)]):
        turned = matrices(ids[None])[0, 0]
    with torus(pairs, BOTH, [(4, 6)]):
        cos, sin = pairs(ids)
    torch.testing.assert_close(turned[..., 0, 0].repeat_interleave(2, 1), cos)
    torch.testing.assert_close(turned[..., 1, 0].repeat_interleave(2, 1), sin)
    complex_ = ComplexPosEmbed(10000, [16, 56, 56])
    with torus(complex_, BOTH, [(4, 6)]):
        torch.testing.assert_close(complex_(ids), torch.complex(turned[..., 0, 0], turned[..., 1, 0]))
    torch.testing.assert_close(complex_(ids).real.repeat_interleave(2, 1), pairs(ids)[0])
    tokens_first = HiDreamEmbedND(10000, [16, 56, 56])
    with torus(tokens_first, BOTH, [(4, 6)]):
        assert torch.equal(tokens_first(ids.expand(2, -1, -1)), turned.expand(2, 1, -1, -1, -1, -1).movedim(1, 2))


def _embedded(ids: Tensor, axes: Axes, size: tuple[int, int]) -> Tensor:
    embedder = EmbedND(10000, [16, 56, 56])
    with torus(embedder, axes, [size]):
        return embedder(ids[None])[0, 0]


LATTICES = [
    (Axes(True, True), (0, 8), (6, 0)),
    (Axes(True, True, half_drop=True), (3, 8), (6, 0)),
    (Axes(True, True, brick=True), (0, 8), (6, 4)),
]


@pytest.mark.parametrize(("axes", "across", "down"), LATTICES, ids=["square", "half_drop", "brick"])
def test_a_token_and_its_repeats_have_one_angle(axes: Axes, across: tuple[int, int], down: tuple[int, int]) -> None:
    """The embedding of an image moved by a period of the lattice is that of the image itself."""
    ids = image(6, 8)
    still = _embedded(ids, axes, (6, 8))
    for dy, dx in (across, down):
        moved = _embedded(ids + torch.tensor([0.0, dy, dx]), axes, (6, 8))
        torch.testing.assert_close(moved, still, atol=1e-5, rtol=0)
    half = _embedded(ids + torch.tensor([0.0, 3.0, 0.0]), axes, (6, 8))
    assert not torch.allclose(half, still, atol=0.1)


def test_rope_options_of_a_host_scale_the_period() -> None:
    """Positions twice as dense: the period is half as long in positions."""
    ids = image(6, 8, first=3.0, step=0.5)
    moved = _embedded(ids + torch.tensor([0.0, 3.0, 4.0]), BOTH, (6, 8))
    torch.testing.assert_close(moved, _embedded(ids, BOTH, (6, 8)), atol=1e-5, rtol=0)


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 300), dim=st.sampled_from([2, 16, 32, 56]), theta=st.sampled_from([256.0, 2000.0, 1e4]))
def test_angles_repeat_and_stay_close_to_the_stock_ones(length: int, dim: int, theta: float) -> None:
    positions = torch.arange(2 * length)
    angles = torus_angles(positions, float(length), dim, theta)
    turns = (angles[length:] - angles[:length]) / (2 * math.pi)
    torch.testing.assert_close(turns, turns.round(), atol=1e-9, rtol=0)
    stock = positions[:, None] * theta ** -(torch.arange(0, dim, 2).double() / dim)
    assert bool(((angles - stock).abs() <= math.pi / length * positions[:, None] + 1e-9).all())


@settings(max_examples=50, deadline=None)
@given(
    text=st.integers(0, 5),
    heights=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    width=st.integers(1, 6),
    order=st.randoms(use_true_random=False),
)
def test_images_are_found_wherever_they_lie(text: int, heights: list[int], width: int, order: Random) -> None:
    """References may be as wide as the image, but higher or lower."""
    images = [image(height, width, index=float(i)) for i, height in enumerate(heights)]
    ids = torch.cat([torch.zeros(text, 3), *images, torch.zeros(3, 3)])
    starts = [text + width * sum(heights[:i]) for i in range(len(heights))]
    expected = [Grid(start, height, width, 1.0, 1.0) for start, height in zip(starts, heights, strict=True)]
    sizes = [(height, width) for height in order.sample(heights, len(heights))]
    if min(heights) * width > 1:  # a text's token looks like an image of one token
        assert find_grids(ids, sizes) == expected


def test_images_below_one_another_are_told_apart() -> None:
    stacked = torch.cat((image(9, 6), image(2, 8, index=1.0), image(3, 6, index=1.0) + torch.tensor([0, 2, 0])))
    assert find_grids(stacked, [(4, 6), (5, 6), (2, 8), (3, 6)]) == [
        Grid(0, 5, 6, 1.0, 1.0),
        Grid(30, 4, 6, 1.0, 1.0),
        Grid(54, 2, 8, 1.0, 1.0),
        Grid(70, 3, 6, 1.0, 1.0),
    ]


def test_sequences_of_other_models_are_read() -> None:
    flux2 = torch.cat((torch.tensor([[0.0, 0.0, 0.0, i] for i in range(9)]), nn.functional.pad(image(3, 4), (0, 1))))
    assert [grid.start for grid in find_grids(flux2, [(3, 4)])] == [9]
    image2d = torch.cat((image(3, 4)[:, 1:], torch.zeros(4, 2)))
    assert find_grids(image2d, [(3, 4)]) == [Grid(0, 3, 4, 1.0, 1.0)]
    diagonal_text = torch.arange(9.0)[:, None].expand(9, 3)
    assert not find_grids(diagonal_text, [(1, 9), (9, 1), (3, 3)])


def test_positions_along_one_axis_keep_their_angles() -> None:
    """Kandinsky's text has an embedder of its own."""
    text, drawn = EmbedND(10000, [128]), EmbedND(10000, [16, 56, 56])
    ids = torch.arange(6.0)[None, :, None]
    stock = text(ids)
    with torus(nn.ModuleList([text, drawn]), BOTH, [(2, 3)]):
        assert torch.equal(text(ids), stock)
        drawn(image(2, 3)[None])


def test_samples_of_a_batch_may_differ() -> None:
    long = torch.cat((torch.zeros(4, 3), image(3, 4)))
    short = torch.cat((torch.zeros(1, 3), image(3, 4), torch.zeros(3, 3)))
    embedder = EmbedND(10000, [16, 56, 56])
    with torus(embedder, BOTH, [(3, 4)]):
        together = embedder(torch.stack((long, short)))
        alone = torch.cat([embedder(ids[None]) for ids in (long, short)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_afterwards_nothing_is_left(error: type[BaseException] | None) -> None:
    model = flux(0)
    keys = {name: set(module.__dict__) for name, module in model.named_modules()}
    before = draw(model, TILINGS["off"], 0)
    context: Any = pytest.raises(error) if error else nullcontext()
    with context, torus(model.diffusion_model, BOTH, [(SIDE, SIDE)]):
        draw(model, BOTH, 0)
        model.diffusion_model.pos_embed(image(SIDE, SIDE))
        if error:
            raise error
    assert torch.equal(draw(model, TILINGS["off"], 0), before)
    assert {name: set(module.__dict__) for name, module in model.named_modules()} == keys


def _attend(embedder: EmbedND, ids: Tensor, x: Tensor) -> Tensor:
    """Attention of tokens x (N, D) to each other, turned by their positions ids (N, A) in float32 as hosts do."""
    turn = embedder(ids[None])[0, 0]
    queries, keys = ((turn @ y.float().unflatten(-1, (-1, 2, 1))).flatten(1).to(x) for y in (x, x.flip(-1)))
    return nn.functional.scaled_dot_product_attention(queries[None], keys[None], x[None])[0]


@pytest.mark.parametrize("tiling", ["both", "horizontal", "vertical"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)], ids=str
)
def test_attention_commutes_with_rolling_in_its_own_precision(
    dtype: torch.dtype, tolerance: float, tiling: str
) -> None:
    """Hosts give positions in the precision of the latents."""
    axes, size, embedder = TILINGS[tiling], (12, 16), EmbedND(10000, [16, 24, 24])
    ids = image(*size).to(dtype)
    x = torch.randn(*size, 64, generator=torch.Generator().manual_seed(0)).to(dtype)

    def error() -> float:
        shift = (5 * axes.vertical, 7 * axes.horizontal)
        rolled = _attend(embedder, ids, x.roll(shift, (0, 1)).flatten(0, 1)).unflatten(0, size)
        moved = _attend(embedder, ids, x.flatten(0, 1)).unflatten(0, size).roll(shift, (0, 1))
        assert rolled.dtype == dtype
        assert bool(rolled.isfinite().all())
        return float((rolled - moved).float().norm() / moved.float().norm())

    stock = error()
    with torus(embedder, axes, [size]):
        assert within(error(), tolerance)
    assert stock > 0.1


def test_a_model_that_was_not_reached_is_an_error() -> None:
    with pytest.raises(NotPeriodicError, match="Linear has no known rotary"), torus(nn.Linear(1, 1), BOTH, [(4, 4)]):
        pass
    embedder = EmbedND(10000, [16, 56, 56])
    with pytest.raises(NotPeriodicError, match=naming("9 x 6", "rolling")), torus(embedder, BOTH, [(6, 9)]):
        embedder(image(6, 8)[None])


def test_a_call_that_skips_the_network_is_none() -> None:
    """Caches of a host answer some steps themselves."""
    embedder = EmbedND(10000, [16, 56, 56])
    with torus(embedder, BOTH, [(6, 9)]):
        pass
    assert "forward" not in embedder.__dict__
    text = EmbedND(10000, [128])
    with pytest.raises(NotPeriodicError, match="met none"), torus(text, BOTH, [(6, 9)]):
        text(torch.arange(6.0)[None, :, None])
