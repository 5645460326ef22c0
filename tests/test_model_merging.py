"""Merged models: sums of weights, their own changes included."""

from __future__ import annotations

import torch
from tessera.host.nodes.model_merging import add, merge, subtract
from tessera.host.runtime.running import make_patcher, running


def linear(seed: int) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 2)


def test_merges_are_sums_of_weights_and_leave_both_models_alone() -> None:
    one, two = make_patcher(linear(1)), make_patcher(linear(2))
    first, second = (each.model.weight.detach().clone() for each in (one, two))
    change = torch.ones(2, 3)
    two.add_patches({"weight": change}, 0.5)
    second = second + 0.5 * change
    wanted = {
        merge(one, two, 0.3): 0.3 * first + 0.7 * second,
        add(one, two): first + second,
        subtract(one, two, 2.0): 2.0 * first - 2.0 * second,
        add(one, subtract(two, one, 1.0)): second,
    }
    for merged, weight in wanted.items():
        with running(merged):
            torch.testing.assert_close(merged.model.weight.detach(), weight)
        assert torch.equal(one.model.weight, first)
