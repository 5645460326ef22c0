"""Adapters for Flux on its relatives: Chroma attends as Flux does; what does not is refused in a line."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_chroma import ChromaTransformer2DModel
from margins import within
from naming import naming
from tessera.host.models.families.chroma import Chroma
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.layers import find_layers
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tiny_adapters import Encoder, plain_image, random_instantx, random_xlabs
from torch import Tensor, nn

SIDE = 8


@pytest.fixture
def model() -> ModelPatcher:
    torch.manual_seed(0)
    config = {"num_layers": 2, "num_single_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
    config |= {"joint_attention_dim": 48, "approximator_hidden_dim": 32, "approximator_layers": 1}
    config |= {"axes_dims_rope": (4, 6, 6), "in_channels": 64}
    network: Any = ChromaTransformer2DModel.from_config(config)
    for name, parameter in network.named_parameters():
        nn.init.normal_(parameter.data, std=0.1 if parameter.ndim > 1 else 0.2)
        parameter.data += "norm" in name and name.endswith("weight") and parameter.ndim == 1
    return ModelPatcher(Chroma(network.eval().requires_grad_(False)), "cpu", "cpu")


def _apply(model: Any, make: Callable[[nn.Module], Any], *prompts: ImagePrompt) -> Any:
    loaded = LoadedAdapter(parse_adapter(make(model.model.diffusion_model), "flux"), Encoder())
    return TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded).args


def _prompt(red: float = 0.3, scale: float = 0.7, **more: Any) -> ImagePrompt:
    return ImagePrompt(plain_image(red), scale, "full", **more)


def _predict(model: Any) -> Tensor:
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers, "cond_or_uncond": [1, 0]}
    generator = torch.Generator().manual_seed(1)
    shapes = {"x": (2, 16, SIDE, SIDE), "c_crossattn": (2, 7, 48)}
    given: dict[str, Any] = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    rest = {"t": torch.full((2,), 0.4), "guidance": torch.zeros(2)}
    return model.model.apply_model(**given, **rest, transformer_options=to)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("make", "blocks"), [(random_xlabs, "2 of 2"), (random_instantx, "4 of 4")])
def test_chroma_sees_images(model: ModelPatcher, make: Callable[[nn.Module], Any], blocks: str) -> None:
    plain = _predict(model)
    applied, report = _apply(model, make, _prompt())
    assert f"1 image in {blocks}" in report
    whole = _predict(applied)
    assert _distance(whole, plain) > 1e-3 and torch.equal(_predict(model), plain)
    left = torch.zeros(8 * SIDE, 8 * SIDE)
    left[:, : 4 * SIDE] = 1
    how: dict[str, Any] = {"blocks": "double_blocks=1"}
    halves = [_prompt(mask=mask, **how) for mask in (left, 1 - left)]
    everywhere = _predict(_apply(model, make, _prompt(**how))[0])
    assert within(_distance(_predict(_apply(model, make, *halves)[0]), everywhere), 1e-5)


def _like_flux(**more: Any) -> nn.Module:
    network: Any = nn.Module()
    network.double_blocks = nn.ModuleList([nn.Identity()] * 2)
    network.single_blocks = nn.ModuleList([nn.Identity()] * 3)
    network.num_heads, network.patch_size = 2, 2
    network.txt_in = nn.Linear(16, 32)
    for name, value in more.items():
        setattr(network, name, value)
    return network


def test_tokens_are_as_large_as_the_network_says() -> None:
    """Chroma Radiance has tokens of 16 pixels."""
    assert find_layers(_like_flux())[0].grid((64, 50)) == (32, 25)
    assert find_layers(_like_flux(patch_size=16))[0].grid((64, 50)) == (4, 4)


def test_a_network_whose_text_is_refined_is_refused() -> None:
    """HunyuanVideo has Flux's blocks, and a network in front of its text."""
    video: Any = _like_flux(txt_in=nn.Sequential(nn.Linear(16, 32)))
    model: Any = SimpleNamespace(
        get_model_object={"diffusion_model": video, "latent_format": _latents()}.get,
        load_device=torch.device("cpu"),
        model=SimpleNamespace(get_dtype_inference=lambda: torch.float32),
    )
    loaded = LoadedAdapter(parse_adapter(random_instantx(_like_flux()), "flux"), Encoder())
    with pytest.raises(ValueError, match=naming("UNet", "Flux", "Module")) as refused:
        TesseraApplyImagePrompts.execute(model, (_prompt(),), "sum", loaded)
    assert "\n" not in str(refused.value)


def _latents() -> SimpleNamespace:
    return SimpleNamespace(latent_channels=16, spacial_downscale_ratio=8)
