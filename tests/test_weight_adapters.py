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
    return weight + change.at(1.0).of(WHOLE, weight)


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


def fused(flux: ModelPatcher) -> torch.Tensor:
    """The weight that the original transformer has for queries, keys and values."""
    weights = flux.model.state_dict()
    return torch.cat([weights[f"{QUERY[:-1]}{part}.weight"] for part in "qkv"])


def orthogonal(rows: int, name: str) -> Adapter:
    return {f"{name}.oft_blocks": normal(rows // 2, 2, 2, seed=7)}


@pytest.mark.parametrize("kind", ["columns", "butterfly", "glora"])
def test_the_rows_of_a_part_change_by_those_of_the_whole(flux: ModelPatcher, kind: str) -> None:
    whole = fused(flux)
    rows, columns = whole.shape
    a1, a2, b1, b2 = normal(columns, RANK), normal(RANK, columns), normal(rows, RANK), normal(RANK, columns)
    adapter = {
        "columns": low_rank(rows, columns) | {"m.dora_scale": normal(1, columns).abs()},
        "butterfly": {"m.oft_blocks": normal(3, rows // 4, 4, 4, seed=7)},
        "glora": {"m.a1.weight": a1, "m.a2.weight": a2, "m.b1.weight": b1, "m.b2.weight": b2},
    }[kind]
    once = whole.double() + 0.5
    (change,) = read_changes(adapter, "m")
    wanted = once + 0.7 * change.at(0.7).of(WHOLE, once)
    first = {f"{QUERY[:-1]}{part}.diff": torch.full((rows // 3, columns), 0.5) for part in "qkv"}
    moved, _ = load_lora_for_models(flux, None, first, 1.0, 0.0)
    named = {key.replace("m.", f"{FUSED}.", 1): tensor for key, tensor in adapter.items()}
    result, _ = load_lora_for_models(moved, None, named, 0.7, 0.0)
    assert result is not None
    result.patch_model()
    found = fused(result).double()
    result.unpatch_model()
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fused(flux), whole, atol=0.0, rtol=0.0)


def test_rotations_keep_lengths_and_angles(weight: torch.Tensor) -> None:
    found = changed(orthogonal(OUT, "m"), weight)
    torch.testing.assert_close(found.T @ found, weight.T @ weight)
    for group in range(0, OUT, 2):
        before, after = weight[group : group + 2], found[group : group + 2]
        torch.testing.assert_close(after.norm(), before.norm())
    assert (found - weight).abs().max() > 0.1


def test_butterflies_reach_every_row() -> None:
    weight = torch.zeros(OUT, IN, dtype=torch.float64)
    weight[0] = 1.0
    found = changed({"m.oft_blocks": normal(3, OUT // 2, 2, 2)}, weight)
    assert (found.abs().amax(1) > 1e-6).all()
    torch.testing.assert_close(found.T @ found, weight.T @ weight)


def test_rescaled_butterflies_scale_rows(weight: torch.Tensor) -> None:
    blocks = {"m.oft_blocks": normal(2, OUT // 2, 2, 2), "m.alpha": torch.tensor(0.0)}
    scale = normal(OUT, 1).abs()
    found = changed(blocks | {"m.rescale": scale}, weight)
    torch.testing.assert_close(found, changed(blocks, weight) * scale)


def test_rotations_have_a_limit(weight: torch.Tensor) -> None:
    adapter = orthogonal(OUT, "m")
    size = float((adapter["m.oft_blocks"] - adapter["m.oft_blocks"].mT).norm())
    half = {"m.oft_blocks": adapter["m.oft_blocks"] / 2}
    found = changed(adapter | {"m.alpha": torch.tensor(size / 2, dtype=torch.float64)}, weight)
    torch.testing.assert_close(found, changed(half, weight))


@pytest.mark.parametrize("older", [False, True])
def test_glora_changes_weights_by_what_they_are(weight: torch.Tensor, older: bool) -> None:
    into, back, out, columns = normal(IN, RANK), normal(RANK, IN), normal(OUT, RANK), normal(RANK, IN, seed=8)
    names = ("a2", "a1", "b2", "b1") if older else ("a1", "a2", "b1", "b2")
    adapter = {f"m.{n}.weight": part for n, part in zip(names, (into, back, out, columns), strict=True)}
    wanted = (weight @ into @ back + out @ columns) * ALPHA / RANK
    torch.testing.assert_close(changed(adapter | {"m.alpha": torch.tensor(ALPHA)}, weight), weight + wanted)


def test_what_rotations_leave_out_is_named(flux: ModelPatcher, caplog: pytest.LogCaptureFixture) -> None:
    rows = len(flux.model.state_dict()[f"{QUERY}.weight"])
    with caplog.at_level(logging.WARNING):
        adapter = orthogonal(rows, QUERY) | {f"{QUERY}.rescale": torch.ones(rows, 1)}
        load_lora_for_models(flux, None, adapter, 1.0, 0.0)
    assert "1 tensors of the LoRA are not used" in caplog.text and f"{QUERY}.rescale" in caplog.text


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
