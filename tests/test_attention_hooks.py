"""Hooks inside the transformer blocks of the embedded host's UNets, under ComfyUI's names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tessera.host.models.attention_hooks import optimized_attention
from tessera.host.models.model_base import SD15, SDXL
from tessera.host.runtime.patcher import ModelPatcher
from torch import Tensor

SIGMA = torch.tensor([3.0, 3.0])


@pytest.fixture(params=["sd15", "sdxl"])
def model(request: pytest.FixtureRequest) -> ModelPatcher:
    unet = request.getfixturevalue(f"{request.param}_unet")
    return ModelPatcher((SD15 if request.param == "sd15" else SDXL)(unet), "cpu", "cpu")


def _predict(model: ModelPatcher) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 4, 8, 24, generator=generator), torch.randn(2, 5, 16, generator=generator)
    conds = {"y": torch.ones(2, 16), "time_ids": torch.ones(2, 6)} if isinstance(model.model, SDXL) else {}
    return model.model.apply_model(
        x, SIGMA, c_crossattn=text, transformer_options=model.model_options["transformer_options"], **conds
    )


def _plain(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
    return optimized_attention(q, k, v, extra["n_heads"])


def test_every_cross_attention_is_reached_under_comfyuis_key(model: ModelPatcher) -> None:
    if isinstance(model.model, SDXL):
        expected = [("input", 3, 0), ("input", 5, 0), ("input", 5, 1), ("middle", 0, 0), ("middle", 0, 1)]
        expected += [("output", n, j) for n in (0, 1) for j in (0, 1)] + [("output", n, 0) for n in (2, 3)]
    else:
        expected = [("input", n, 0) for n in (1, 3, 5)] + [("middle", 0, 0)] + [("output", n, 0) for n in range(2, 8)]
    plain, seen = _predict(model), []

    def look(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        seen.append((*extra["block"], extra["block_index"]))
        height, width = extra["activations_shape"][-2:]
        assert height * width == q.shape[1]
        assert extra["dim_head"] * extra["n_heads"] == q.shape[2] == k.shape[2]
        assert "patches_replace" not in extra
        return _plain(q, k, v, extra)

    clone = model.clone()
    for key in expected:
        clone.set_model_attn2_replace(look, *key)
    assert torch.equal(_predict(clone), plain)
    assert seen == expected
    assert torch.equal(_predict(model), plain)


def test_a_block_without_index_stands_for_all_its_transformers(model: ModelPatcher) -> None:
    clone, seen = model.clone(), []
    clone.set_model_attn1_replace(lambda q, k, v, e: seen.append(e["block"]) or _plain(q, k, v, e), "middle", 0)
    assert torch.equal(_predict(clone), _predict(model))
    assert seen == [("middle", 0)] * (2 if isinstance(model.model, SDXL) else 1)


@pytest.mark.parametrize("kind", ["attn1", "attn2"])
def test_patches_change_inputs_and_outputs(model: ModelPatcher, kind: str) -> None:
    plain = _predict(model)
    for name, patch in (
        (f"{kind}_patch", lambda n, context, value, extra: (n, context, 2 * value)),
        (f"{kind}_output_patch", lambda out, extra: 2 * out),
    ):
        clone = model.clone()
        clone.set_model_patch(patch, name)
        assert not torch.allclose(_predict(clone), plain)
    assert torch.equal(_predict(model), plain)


def test_an_error_leaves_no_hook(model: ModelPatcher) -> None:
    plain, clone = _predict(model), model.clone()
    clone.set_model_attn2_replace(lambda *_: 1 / 0, "middle", 0)
    with pytest.raises(ZeroDivisionError):
        _predict(clone)
    assert torch.equal(_predict(model), plain)


def test_hooks_that_are_not_known_are_named(model: ModelPatcher) -> None:
    clone = model.clone()
    clone.set_model_patch(lambda *_: None, "input_block_patch")
    with pytest.raises(NotImplementedError, match="input_block_patch"):
        _predict(clone)
