"""LoRAs in every layout, as changes of a clone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from naming import naming
from tessera.host.models.families import make_model
from tessera.host.models.loaders import load_checkpoint
from tessera.host.models.lora import load_lora_file, load_lora_for_models
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.text.clip import CLIP

Checkpoints = dict[str, tuple[Path, Path]]
Lora = dict[str, torch.Tensor]
RANK, ALPHA = 2, 6.0
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "down_blocks.0.resnets.0.conv1"
TEXT = "text_model.encoder.layers.1.mlp.fc1"


@pytest.fixture(scope="module")
def sd15(checkpoints: Checkpoints) -> tuple[ModelPatcher, CLIP]:
    """MODEL and CLIP."""
    model, clip, _ = load_checkpoint(checkpoints["sd15"][0])
    assert clip is not None
    return model, clip


def factors(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Up and down matrices for a weight."""
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(RANK, *weight.shape[1:], generator=generator)
    return torch.randn(weight.shape[0], RANK, *[1] * (weight.ndim - 2), generator=generator), down


def change(weight: torch.Tensor) -> torch.Tensor:
    """What the factors add to a weight at strength 1, alpha not counted."""
    up, down = factors(weight)
    return (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)


def patched(owner: Any, key: str) -> torch.Tensor:
    """A weight as a run sees it."""
    patcher = owner if isinstance(owner, ModelPatcher) else owner.patcher
    patcher.patch_model()
    try:
        return patcher.model.state_dict()[key].clone()
    finally:
        patcher.unpatch_model()


def underscored(module: str) -> str:
    """As kohya's scripts write it."""
    return module.replace(".", "_")


def kohya(module: str) -> tuple[str, str]:
    """Keys of the two factors."""
    return f"lora_unet_{underscored(module)}.lora_up.weight", f"lora_unet_{underscored(module)}.lora_down.weight"


def peft(module: str) -> tuple[str, str]:
    """Keys of the two factors."""
    return f"unet.{module}.lora_B.weight", f"unet.{module}.lora_A.weight"


def diffusers(module: str) -> tuple[str, str]:
    """Keys of the two factors."""
    return f"unet.{module}.lora.up.weight", f"unet.{module}.lora.down.weight"


def processor(module: str) -> tuple[str, str]:
    """Keys of the two factors."""
    name = module.removesuffix(".0").replace(".to_", ".processor.to_")
    return f"unet.{name}_lora.up.weight", f"unet.{name}_lora.down.weight"


@pytest.mark.parametrize(
    ("names", "module"),
    [(names, module) for names in (kohya, peft, diffusers) for module in (QUERY, OUT, CONV)]
    + [(processor, QUERY), (processor, OUT)],
)
def test_layouts_of_unets(
    sd15: tuple[ModelPatcher, CLIP], names: Callable[[str], tuple[str, str]], module: str
) -> None:
    model, key = sd15[0], f"diffusion_model.{module}.weight"
    weight = model.model.state_dict()[key].clone()
    lora = dict(zip(names(module), factors(weight), strict=True))
    result, _ = load_lora_for_models(model, None, lora, 0.5, 0.0)
    torch.testing.assert_close(patched(result, key), weight + 0.5 * change(weight))
    assert torch.equal(patched(model, key), weight)


def test_original_names_and_alpha(sd15: tuple[ModelPatcher, CLIP]) -> None:
    model, key = sd15[0], f"diffusion_model.{QUERY}.weight"
    weight = model.model.state_dict()[key].clone()
    up, down = factors(weight)
    name = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    lora = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.alpha": torch.tensor(ALPHA)}
    result, _ = load_lora_for_models(model, None, lora, -1.0, 0.0)
    torch.testing.assert_close(patched(result, key), weight - ALPHA / RANK * change(weight))


def test_loras_add_up(sd15: tuple[ModelPatcher, CLIP]) -> None:
    model, key = sd15[0], f"diffusion_model.{QUERY}.weight"
    weight = model.model.state_dict()[key].clone()
    lora = dict(zip(kohya(QUERY), factors(weight), strict=True))
    once, _ = load_lora_for_models(model, None, lora, 0.25, 0.0)
    twice, _ = load_lora_for_models(once, None, lora, 0.5, 0.0)
    torch.testing.assert_close(patched(twice, key), weight + 0.75 * change(weight))
    torch.testing.assert_close(patched(once, key), weight + 0.25 * change(weight))


@pytest.mark.parametrize(
    "name", [f"lora_te_{underscored(TEXT)}", f"lora_te1_{underscored(TEXT)}", f"text_encoder.{TEXT}"]
)
def test_text_encoders(sd15: tuple[ModelPatcher, CLIP], name: str) -> None:
    model, clip = sd15
    key = f"clip_l.transformer.{TEXT}.weight"
    weight = clip.cond_stage_model.state_dict()[key].clone()
    up, down = factors(weight)
    before = clip.encode("moss")
    lora = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
    new_model, new_clip = load_lora_for_models(model, clip, lora, 1.0, 2.0)
    assert new_clip is not None and new_model is not model
    torch.testing.assert_close(patched(new_clip, key), weight + 2.0 * change(weight))
    assert not torch.allclose(new_clip.encode("moss"), before)
    assert torch.equal(clip.encode("moss"), before)


def test_second_text_encoder(checkpoints: Checkpoints) -> None:
    _, clip, _ = load_checkpoint(checkpoints["sdxl"][0])
    assert clip is not None
    key = f"clip_g.transformer.{TEXT}.weight"
    weight = clip.cond_stage_model.state_dict()[key].clone()
    up, down = factors(weight)
    name = f"lora_te2_{underscored(TEXT)}"
    lora = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
    _, new_clip = load_lora_for_models(None, clip, lora, 0.0, 1.0)
    torch.testing.assert_close(patched(new_clip, key), weight + change(weight))


@pytest.fixture(scope="module")
def flux() -> ModelPatcher:
    """MODEL."""
    return make_model(tiny.flux_weights())


def test_fused_modules_are_shared_out(flux: ModelPatcher) -> None:
    sizes = {"attn.to_q": 128, "attn.to_k": 128, "attn.to_v": 128, "proj_mlp": 512}
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(sum(sizes.values()), RANK, generator=generator), torch.randn(RANK, 128, generator=generator)
    name = "lora_unet_single_blocks_1_linear1"
    result, _ = load_lora_for_models(
        flux, None, {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}, 1.0, 0
    )
    rows = (up @ down).split(list(sizes.values()))
    for (module, _), part in zip(sizes.items(), rows, strict=True):
        key = f"diffusion_model.single_transformer_blocks.1.{module}.weight"
        torch.testing.assert_close(patched(result, key), flux.model.state_dict()[key] + part)


def test_halves_that_change_places(flux: ModelPatcher) -> None:
    key = "diffusion_model.norm_out.linear.weight"
    weight = flux.model.state_dict()[key].clone()
    name = "lora_unet_final_layer_adaLN_modulation_1"
    up, down = factors(weight)
    result, _ = load_lora_for_models(
        flux, None, {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}, 1.0, 0
    )
    scale, shift = change(weight).chunk(2)[::-1]
    torch.testing.assert_close(patched(result, key), weight + torch.cat([scale, shift]))


def test_names_of_flux_agree(flux: ModelPatcher) -> None:
    key = "diffusion_model.transformer_blocks.0.attn.to_out.0.weight"
    weight = flux.model.state_dict()[key].clone()
    up, down = factors(weight)
    for name in (
        "transformer.transformer_blocks.0.attn.to_out.0",
        "lora_transformer_transformer_blocks_0_attn_to_out_0",
        "lora_unet_double_blocks_0_img_attn_proj",
        "diffusion_model.double_blocks.0.img_attn.proj",
    ):
        lora = {f"{name}.lora_B.weight": up, f"{name}.lora_A.weight": down}
        result, _ = load_lora_for_models(flux, None, lora, 1.0, 0)
        torch.testing.assert_close(patched(result, key), weight + change(weight))


def test_tucker_core(sd15: tuple[ModelPatcher, CLIP]) -> None:
    model, key = sd15[0], f"diffusion_model.{CONV}.weight"
    weight = model.model.state_dict()[key].clone()
    up, down, core = (
        torch.randn(weight.shape[0], 3, 1, 1),
        torch.randn(2, weight.shape[1], 1, 1),
        torch.randn(3, 2, 3, 3),
    )
    name = f"lora_unet_{underscored(CONV)}"
    lora = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.lora_mid.weight": core}
    result, _ = load_lora_for_models(model, None, lora, 1.0, 0)
    x = torch.randn(1, weight.shape[1], 5, 5)
    conv = torch.nn.functional.conv2d
    wanted = conv(x, weight, padding=1) + conv(conv(conv(x, down), core, padding=1), up)
    torch.testing.assert_close(conv(x, patched(result, key), padding=1), wanted, atol=1e-3, rtol=1e-3)


def test_differences_of_weight_and_bias(sd15: tuple[ModelPatcher, CLIP]) -> None:
    model, name = sd15[0], f"diffusion_model.{CONV}"
    weights = {kind: model.model.state_dict()[f"{name}.{kind}"].clone() for kind in ("weight", "bias")}
    prefix = f"lora_unet_{underscored(CONV)}"
    lora = {f"{prefix}.diff": torch.ones_like(weights["weight"]), f"{prefix}.diff_b": torch.ones_like(weights["bias"])}
    result, _ = load_lora_for_models(model, None, lora, 0.5, 0)
    for kind, weight in weights.items():
        torch.testing.assert_close(patched(result, f"{name}.{kind}"), weight + 0.5)


def test_what_is_not_used_is_named(sd15: tuple[ModelPatcher, CLIP], caplog: pytest.LogCaptureFixture) -> None:
    weight = sd15[0].model.state_dict()[f"diffusion_model.{QUERY}.weight"]
    lora = dict(zip(kohya(QUERY), factors(weight), strict=True)) | {"lora_unet_strange.alpha": torch.tensor(1.0)}
    with caplog.at_level(logging.WARNING):
        load_lora_for_models(*sd15, lora, 1.0, 1.0)
    assert "1 tensors of the LoRA are not used: lora_unet_strange.alpha" in caplog.text


def test_a_lora_for_another_model(sd15: tuple[ModelPatcher, CLIP], tmp_path: Path) -> None:
    path = tiny.save(tmp_path / "other.safetensors", {"lora_unet_blocks_0.lora_up.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=naming("other.safetensors", "LoRA")):
        load_lora_file(*sd15, path, 1.0, 1.0)


def test_shapes_of_another_model(sd15: tuple[ModelPatcher, CLIP], caplog: pytest.LogCaptureFixture) -> None:
    wrong = dict(zip(kohya(QUERY), (torch.zeros(48, RANK), torch.zeros(RANK, 48)), strict=True))
    with pytest.raises(ValueError, match="fits neither"):
        load_lora_for_models(*sd15, wrong, 1.0, 1.0)
    weight = sd15[0].model.state_dict()[f"diffusion_model.{OUT}.weight"]
    right = dict(zip(kohya(OUT), factors(weight), strict=True))
    with caplog.at_level(logging.WARNING):
        result, _ = load_lora_for_models(sd15[0], None, wrong | right, 1.0, 1.0)
    assert "2 tensors of the LoRA are not used" in caplog.text
    patched(result, f"diffusion_model.{OUT}.weight")
