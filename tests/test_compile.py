"""torch.compile: seamless UNets and Flux attention with a negative are one graph, which serves every step.

A second size or strength makes one more graph, which then serves all others: torch's own rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from tessera.guidance import Sequence, joint_nag
from tessera.tiling.axes import TILINGS
from tessera.tiling.circular import circular
from torch import Tensor
from torch.nn import functional as F


def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="eager")


def _no_more_graphs() -> Any:
    return torch._dynamo.config.patch(error_on_recompile=True)


@pytest.fixture(scope="module")
def unet() -> Any:
    """Of each kind of layer one: tracing takes long."""
    sizes: dict[str, Any] = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    kinds: dict[str, Any] = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(sample_size=16, cross_attention_dim=16, attention_head_dim=4, **sizes, **kinds).eval()


@torch.no_grad()
def test_a_seamless_unet(unet: Any) -> None:
    def run(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return unet(x, t, text).sample

    def inputs(step: int, height: int, width: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(2, 4, height, width, generator=generator)
        return x, torch.tensor(500.0 - step), torch.randn(2, 7, 16, generator=generator)

    compiled = _compiled(run)
    for step, size in enumerate([(16, 16), (16, 16), (24, 32), (24, 32), (32, 24), (8, 40)]):
        # As the hooks do, at each step anew.
        with circular(unet, TILINGS["both"]), torch._dynamo.config.patch(error_on_recompile=step not in (0, 2)):
            torch.testing.assert_close(compiled(*inputs(step, *size)), run(*inputs(step, *size)))


@pytest.mark.parametrize("rows", [None, [1]])
@torch.no_grad()
def test_flux_attention_with_a_negative(rows: list[int] | None) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)

    def run(q: Tensor, k: Tensor, v: Tensor, strength: float) -> Tensor:
        return joint_nag(attend, q, k, v, None, Sequence(4, 5, q.shape[2] - 9), strength, rows)

    def inputs(step: int, image: int = 16) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = torch.randn(3, 2, 2, 9 + image, 8, generator=torch.Generator().manual_seed(step))
        return q, k, v

    compiled = _compiled(run)
    for step in range(3):
        with torch._dynamo.config.patch(error_on_recompile=step > 0):
            torch.testing.assert_close(compiled(*inputs(step), 3.0), run(*inputs(step), 3.0))
    compiled(*inputs(3), 4.0)
    compiled(*inputs(3, 24), 4.5)
    with _no_more_graphs():
        torch.testing.assert_close(compiled(*inputs(4, 32), 5.0), run(*inputs(4, 32), 5.0))
