"""FreeU, self-attention guidance and skipped layers: by their definitions, and without a trace in the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tessera.app.registry import node_classes
from tessera.host.models.model_base import SD15
from tessera.host.models.unet_features import (
    blurred_where_attended,
    received_attention,
    scaled_low_frequencies,
    weighed_backbone,
)
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.ksampler import KSampler

FREE_U = {"b1": 1.5, "b2": 1.5, "s1": 0.5, "s2": 0.5}


def test_low_frequencies_are_scaled_and_high_ones_stay() -> None:
    flat = torch.full((1, 2, 8, 8), 3.0)
    checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1.0
    torch.testing.assert_close(scaled_low_frequencies(flat + checks, 0.5), 0.5 * flat + checks)


def test_half_of_the_channels_is_weighed_most_where_their_mean_is_high() -> None:
    hidden = torch.zeros(1, 4, 1, 3)
    hidden[..., 1], hidden[..., 2] = 1.0, 2.0
    assert weighed_backbone(hidden, 2.0, by_mean=False)[0, :, 0].tolist() == [[0, 2, 4]] * 2 + [[0, 1, 2]] * 2
    assert weighed_backbone(hidden, 2.0, by_mean=True)[0, :, 0].tolist() == [[0, 1.5, 4]] * 2 + [[0, 1, 2]] * 2


def test_attention_is_shared_out() -> None:
    q, k = torch.randn(2, 2, 12, 8, generator=torch.Generator().manual_seed(0))
    found = received_attention(q, k, 2)
    assert found.shape == (2, 12)
    torch.testing.assert_close(found.mean(1), torch.ones(2))


def test_only_what_is_attended_is_blurred() -> None:
    x = torch.rand(1, 1, 8, 16, generator=torch.Generator().manual_seed(0))
    attention = torch.tensor([[2.0, 0.0] * 4])
    found = blurred_where_attended(x, attention, 2.0)
    changed = (found != x).reshape(8, 4, 4).any(2).any(0)
    assert changed.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("name", "inputs"),
    [("FreeU", FREE_U), ("FreeU_V2", FREE_U), ("SelfAttentionGuidance", {"scale": 1.0, "blur_sigma": 2.0})],
)
def test_nodes_change_a_clone_alone(name: str, inputs: dict[str, Any], sd15_unet: Any) -> None:
    model = ModelPatcher(SD15(sd15_unet), "cpu", "cpu")
    changed = node_classes()[name].execute(model=model, **inputs).args[0]
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 4, 16, 16, generator=generator)
    positive, negative = (
        [[torch.randn(1, 7, sd15_unet.config.cross_attention_dim, generator=generator), {}]] for _ in range(2)
    )

    def sample(patcher: ModelPatcher) -> torch.Tensor:
        with torch.inference_mode():
            return KSampler(patcher, 2, "euler", "normal", 1.0).sample(
                noise, positive, negative, 5.0, 0 * noise, seed=0
            )

    before, during, after = sample(model), sample(changed), sample(model)
    assert torch.equal(before, after) and not torch.allclose(before, during)
    assert not any(module._forward_pre_hooks for module in sd15_unet.modules())
