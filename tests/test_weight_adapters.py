"""LoHa, LoKr, DoRA and what else adapters do to weights, by their definitions."""

from __future__ import annotations

import logging

import pytest
import tiny_models as tiny
import torch
from tessera.host.layouts.ldm_layout import Source
from tessera.host.models.families import make_model
from tessera.host.models.lora import load_lora_for_models
from tessera.host.models.weight_adapters import read_changes
from tessera.host.runtime.patcher import ModelPatcher

WHOLE = Source("")
OUT, IN, RANK, ALPHA = 8, 6, 2, 4.0
QUERY = "diffusion_model.transformer_blocks.0.attn.to_q"
FUSED = "diffusion_model.double_blocks.0.img_attn.qkv"
Adapter = dict[str, torch.Tensor]


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(OUT, IN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def flux() -> ModelPatcher:
    """MODEL."""
    return make_model(tiny.flux_weights())


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def low_rank(rows: int = OUT, columns: int = IN) -> Adapter:
    return {"m.lora_up.weight": normal(rows, RANK), "m.lora_down.weight": normal(RANK, columns, seed=2)}


def product(adapter: Adapter) -> torch.Tensor:
    return adapter["m.lora_up.weight"] @ adapter["m.lora_down.weight"]


def changed(adapter: Adapter, weight: torch.Tensor) -> torch.Tensor:
    """A weight with an adapter at strength 1, all of whose tensors are used."""
    (change,) = read_changes(adapter, "m")
    assert change.used == set(adapter)
    return weight + change.of(WHOLE, weight)


def test_loha_multiplies_two_products(weight: torch.Tensor) -> None:
    names = ("w1_a", "w1_b", "w2_a", "w2_b")
    parts = {n: normal(*((OUT, RANK) if n.endswith("a") else (RANK, IN)), seed=i) for i, n in enumerate(names)}
    adapter = {f"m.hada_{name}": part for name, part in parts.items()} | {"m.alpha": torch.tensor(ALPHA)}
    wanted = (parts["w1_a"] @ parts["w1_b"]) * (parts["w2_a"] @ parts["w2_b"]) * ALPHA / RANK
    torch.testing.assert_close(changed(adapter, weight), weight + wanted)


@pytest.mark.parametrize(("shape", "kernel"), [((OUT, IN), ()), ((OUT, IN, 3, 3), (3, 3))])
def test_lokr_repeats_one_matrix_in_the_other(shape: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    first, second = normal(2, 3), normal(OUT // 2, IN // 3, *kernel, seed=3)
    weight = normal(*shape, seed=4)
    difference = changed({"m.lokr_w1": first, "m.lokr_w2": second}, weight) - weight
    for row in range(2):
        for column in range(3):
            block = difference[row * 4 : row * 4 + 4, column * 2 : column * 2 + 2]
            torch.testing.assert_close(block, first[row, column] * second)


def test_lokr_in_factors(weight: torch.Tensor) -> None:
    outer, inner, second = normal(4, RANK), normal(RANK, 3, seed=5), normal(2, 2, seed=6)
    adapter = {"m.lokr_w1_a": outer, "m.lokr_w1_b": inner, "m.lokr_w2": second, "m.alpha": torch.tensor(ALPHA)}
    wanted = torch.kron(outer @ inner, second) * ALPHA / RANK
    torch.testing.assert_close(changed(adapter, weight), weight + wanted)


def test_peft_sets_the_norms_of_rows(weight: torch.Tensor) -> None:
    magnitude = normal(OUT).abs() + 0.5
    found = changed(low_rank() | {"m.lora_magnitude_vector": magnitude}, weight)
    torch.testing.assert_close(found.norm(dim=1), magnitude)
    moved = weight + product(low_rank())
    torch.testing.assert_close(torch.cosine_similarity(found, moved), torch.ones(OUT, dtype=torch.float64))


def test_columns_get_the_norms_of_dora(weight: torch.Tensor) -> None:
    magnitude = normal(1, IN).abs() + 0.5
    found = changed(low_rank() | {"m.dora_scale": magnitude}, weight)
    torch.testing.assert_close(found.norm(dim=0), magnitude[0])


def test_rows_are_scaled_by_those_of_the_original(weight: torch.Tensor) -> None:
    magnitude = normal(OUT, 1).abs() + 0.5
    found = changed(low_rank() | {"m.dora_scale": magnitude}, weight)
    torch.testing.assert_close(found, (weight + product(low_rank())) * magnitude / weight.norm(dim=1, keepdim=True))


def test_a_part_of_a_module_gets_its_rows(flux: ModelPatcher) -> None:
    weight = flux.model.state_dict()[f"{QUERY}.weight"]
    rows, columns = weight.shape
    magnitude = normal(3 * rows, 1).abs()
    adapter = {key.replace("m.", f"{FUSED}.", 1): tensor for key, tensor in low_rank(3 * rows, columns).items()}
    result, _ = load_lora_for_models(flux, None, adapter | {f"{FUSED}.dora_scale": magnitude}, 1.0, 0.0)
    assert result is not None
    found = result.patched_weight(f"{QUERY}.weight", weight)
    moved = weight.double() + product(low_rank(3 * rows, columns))[:rows]
    wanted = moved * magnitude[:rows] / weight.double().norm(dim=1, keepdim=True)
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)


def test_norms_of_columns_of_several_weights_are_named(flux: ModelPatcher, caplog: pytest.LogCaptureFixture) -> None:
    rows, columns = flux.model.state_dict()[f"{QUERY}.weight"].shape
    adapter = {key.replace("m.", f"{FUSED}.", 1): tensor for key, tensor in low_rank(3 * rows, columns).items()}
    plain = {f"{QUERY}.diff_b": torch.ones(rows)}
    with caplog.at_level(logging.WARNING):
        load_lora_for_models(flux, None, plain | adapter | {f"{FUSED}.dora_scale": torch.ones(1, columns)}, 1.0, 0.0)
    assert "3 tensors of the LoRA are not used" in caplog.text and f"{FUSED}.dora_scale" in caplog.text


def test_control_loras_widen_a_layer_and_leave_no_trace(flux: ModelPatcher) -> None:
    weights = {key: tensor.clone() for key, tensor in flux.model.state_dict().items()}
    embedder, norm = "diffusion_model.x_embedder", "diffusion_model.transformer_blocks.0.attn.norm_q.weight"
    rows, columns = weights[f"{embedder}.weight"].shape
    up, down = normal(rows, RANK).float(), normal(RANK, 2 * columns).float()
    scale = torch.full_like(weights[norm], 3.0)
    adapter = {"img_in.lora_B.weight": up, "img_in.lora_A.weight": down, "img_in.lora_B.bias": torch.ones(rows)}
    adapter["double_blocks.0.img_attn.norm.query_norm.scale"] = scale
    result, _ = load_lora_for_models(flux, None, adapter, 0.5, 0.0)
    assert result is not None
    result.patch_model()
    found = {key: tensor.clone() for key, tensor in result.model.state_dict().items()}
    result.unpatch_model()
    torch.testing.assert_close(found[f"{embedder}.weight"][:, columns:], 0.5 * (up @ down)[:, columns:])
    torch.testing.assert_close(found[f"{embedder}.bias"], weights[f"{embedder}.bias"] + 0.5)
    torch.testing.assert_close(found[norm], scale)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in flux.model.state_dict().items())
