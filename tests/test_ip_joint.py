"""Attention of pixels to themselves and to images in one softmax: the ways to combine images, as they are written."""

from __future__ import annotations

import pytest
import torch
from double_precision import double_precision
from margins import within
from tessera.host.models.attention_hooks import optimized_attention
from tessera.ip_adapter.attend import COMBINES
from tessera.ip_adapter.joint import JointImages, attend_jointly
from torch import Tensor


def _obvious(q: Tensor, k: Tensor, v: Tensor, images: JointImages, mask: Tensor | None, row: int) -> Tensor:
    """Each image's exponentials by themselves, as the formulas have them."""
    parts = list(
        zip(images.keys[row].split(images.lengths, 1), images.values[row].split(images.lengths, 1), strict=True)
    )
    every = [(q @ k.transpose(2, 3) / 8).exp(), *((q @ each.transpose(1, 2) / 8).exp() for each, _ in parts)]
    own, *z = (each.sum(-1, keepdim=True) for each in every)
    mean, *given = (each @ w for each, w in zip(every, [v, *(w for _, w in parts)], strict=True))
    ones = torch.ones(len(parts), q.shape[2], dtype=q.dtype)
    weights = [s * m[None, None, :, None] for s, m in zip(images.weights, ones if mask is None else mask, strict=True)]
    total = sum(z)
    if images.combine == "sum":
        out = sum(s * (mean + a) / (own + b) for s, a, b in zip(weights, given, z, strict=True))
    elif images.combine == "concat":
        shares = [s * b / total for s, b in zip(weights, z, strict=True)]
        out = (sum(shares) * mean + sum(s * a for s, a in zip(weights, given, strict=True))) / (own + total)
    else:
        strength = torch.stack(weights).amax(0)
        ratios = [s / strength.clamp(min=1e-9) for s in weights]
        among = sum(s * a for s, a in zip(ratios, given, strict=True))
        out = strength * (mean + among) / (own + sum(s * b for s, b in zip(ratios, z, strict=True)))
    return out.transpose(1, 2).flatten(2)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("weights", [(0.7,), (0.7, 0.7), (0.9, 0.2, 0.0)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("uneven", [False, True])
def test_images_are_combined_as_written(combine: str, weights: tuple[float, ...], masked: bool, uneven: bool) -> None:
    torch.manual_seed(2)
    lengths = tuple(4 + 2 * i * uneven for i in range(len(weights)))
    q, k, v = torch.randn(3, 2, 3, 10, 64, dtype=torch.float64)
    kept = torch.randn(2, 2, 3, sum(lengths), 64, dtype=torch.float64)
    images = JointImages(kept[0], kept[1], lengths, weights, torch.tensor(weights, dtype=torch.float64), combine)
    mask = torch.rand(len(weights), 10, dtype=torch.float64) if masked else None
    if mask is not None:
        mask[0, :4] = 0
    with double_precision():
        found = attend_jointly(optimized_attention, q, k, v, images, mask, 1)
    assert within((found - _obvious(q, k, v, images, mask, 1)).abs().max(), 1e-12)


def test_many_pixels_are_attended_to_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    q, k, v = torch.randn(3, 1, 2, 10, 64, generator=generator)
    keys, values = torch.randn(2, 2, 2, 8, 64, generator=generator)
    images = JointImages(keys, values, (4, 4), (0.9, 0.2), torch.tensor([0.9, 0.2]), "sum")
    mask = torch.rand(2, 10, generator=generator).round()
    whole = attend_jointly(optimized_attention, q, k, v, images, mask, 0)
    monkeypatch.setattr("tessera.ip_adapter.joint.LARGEST", 3 * 16)
    assert within((whole - attend_jointly(optimized_attention, q, k, v, images, mask, 0)).abs().max(), 1e-5)


@pytest.mark.parametrize("combine", COMBINES)
@torch.no_grad()
def test_attention_to_images_is_one_graph(combine: str) -> None:
    def run(q: Tensor, k: Tensor, v: Tensor, kept: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
        images = JointImages(kept[0], kept[1], (4, 4), (0.9, 0.2), weights, combine)
        return attend_jointly(optimized_attention, q, k, v, images, mask, 0)

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        q, k, v = torch.randn(3, 2, 2, 10, 64, generator=generator)
        given = (q, k, v, torch.randn(2, 2, 2, 8, 64, generator=generator), torch.tensor([0.9, 0.2]), torch.rand(2, 10))
        with torch._dynamo.config.patch(error_on_recompile=step > 0):
            torch.testing.assert_close(compiled(*given), run(*given))
