"""Hooks on models in half precision, with weights in fp8 that are cast on use, and with weights that lie elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tessera.host.models.model_base import SD15, Flux
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.hooks import KEY
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tessera.nodes.seamless import TesseraSeamlessModel
from tessera.patching.wrappers import installed
from tessera.tiling.hooks import PERIOD, SEED
from tiny_adapters import Encoder, plain_image, random_adapter, random_xlabs
from torch import Tensor, nn
from torch.nn import functional as F

HALVES = [torch.float16, torch.bfloat16]
ROUNDING = {torch.float16: 2**-10, torch.bfloat16: 2**-7}
SIZE = (16, 16)


class CastLinear(nn.Linear):
    """Casts its weights to its input, as ComfyUI's layers do."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return F.linear(input, self.weight.to(input), None if self.bias is None else self.bias.to(input))


class CastConv2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return self._conv_forward(input, self.weight.to(input), None if self.bias is None else self.bias.to(input))


class CastGroupNorm(nn.GroupNorm):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return F.group_norm(input, self.num_groups, self.weight.to(input), self.bias.to(input), self.eps)


class CastLayerNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        weight, bias = (None if each is None else each.to(input) for each in (self.weight, self.bias))
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


CASTS = {nn.Linear: CastLinear, nn.Conv2d: CastConv2d, nn.GroupNorm: CastGroupNorm, nn.LayerNorm: CastLayerNorm}


def _casting(network: Any, dtype: torch.dtype | None = None) -> Any:
    """A copy whose layers cast on use; matrices and kernels in a dtype of storage."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if type(module) in CASTS:
            module.__class__ = CASTS[type(module)]
        if dtype is not None and isinstance(module, (nn.Linear, nn.Conv2d)):
            module.weight.data = module.weight.data.to(dtype)
    return copied


class Casting(SD15):
    """A model that computes in another dtype than its weights have."""

    computes = torch.float32

    def get_dtype_inference(self) -> torch.dtype:
        return self.computes


def _images(model: Any, network: Any) -> Any:
    flux = isinstance(model.model, Flux)
    weights = random_xlabs(network) if flux else random_adapter(network)
    loaded = LoadedAdapter(parse_adapter(weights, "adapter"), Encoder())
    left = torch.zeros(SIZE)
    left[:, :8] = 1
    prompts = tuple(ImagePrompt(plain_image(c), 0.7, "full", mask=m) for c, m in ((0.2, left), (0.8, None)))
    return TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded).args[0]


def _seamless(model: Any, _: Any) -> Any:
    return TesseraSeamlessModel.execute(model, "both", 0.0, 1.0, "auto").args[0]


def _both(model: Any, network: Any) -> Any:
    return _seamless(_images(model, network), network)


HOOKS: dict[str, Callable[[Any, Any], Any]] = {"images": _images, "seamless": _seamless, "both": _both}


def _predict(model: Any, device: str = "cpu") -> Tensor:
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers}
    to |= {"cond_or_uncond": [1, 0], PERIOD: SIZE, SEED: 1}
    flux, generator = isinstance(model.model, Flux), torch.Generator().manual_seed(1)
    shapes = {"x": (2, 16 if flux else 4, *SIZE), "c_crossattn": (2, 7, 16)} | ({"y": (2, 24)} if flux else {})
    inputs = {name: torch.randn(shape, generator=generator).to(device) for name, shape in shapes.items()}
    extra = {"guidance": torch.full((2,), 3.5, device=device)} if flux else {}
    return model.model.apply_model(**inputs, **extra, t=torch.full((2,), 0.9, device=device), transformer_options=to)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).norm() / b.float().norm())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("hooks", HOOKS)
@pytest.mark.parametrize("kind", ["sd15", "flux"])
def test_half_precision_is_off_by_its_rounding(
    kind: str, hooks: str, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    network = request.getfixturevalue("flux_transformer" if kind == "flux" else "sd15_unet")
    family: Any = Flux if kind == "flux" else SD15
    full, half = (ModelPatcher(family(copy.deepcopy(network).to(d)), "cpu", "cpu") for d in (torch.float32, dtype))
    plain = _distance(_predict(half), _predict(full))
    ours = _distance(_predict(HOOKS[hooks](half, network)), _predict(HOOKS[hooks](full, network)))
    # Layers between round as well: the plain network says how much.
    assert ours < 3 * plain + 3 * ROUNDING[dtype]
    if hooks != "seamless":
        stack = installed(HOOKS[hooks](half, network), KEY).kept.stack
        assert {parameter.dtype for parameter in stack.parameters()} == {dtype}


@pytest.mark.parametrize("hooks", HOOKS)
def test_weights_in_fp8_are_cast_on_use(sd15_unet: Any, hooks: str) -> None:
    """As with the same weights in float32; what is kept has the dtype of computing."""
    stored = _casting(sd15_unet, torch.float8_e4m3fn)
    rounded = copy.deepcopy(sd15_unet)
    for mine, other in zip(rounded.parameters(), stored.parameters(), strict=True):
        mine.data = other.data.float()
    before = {name: t.clone() for name, t in stored.state_dict().items()}
    cast, full = ModelPatcher(Casting(stored), "cpu", "cpu"), ModelPatcher(SD15(rounded), "cpu", "cpu")
    hooked = HOOKS[hooks](cast, sd15_unet)
    assert _distance(_predict(hooked), _predict(HOOKS[hooks](full, sd15_unet))) < 1e-5
    after = stored.state_dict()
    assert all(
        t.dtype == before[name].dtype and torch.equal(t.float(), before[name].float()) for name, t in after.items()
    )
    if hooks != "seamless":
        stack = installed(hooked, KEY).kept.stack
        assert {parameter.dtype for parameter in stack.parameters()} == {torch.float32}


@pytest.mark.parametrize("hooks", HOOKS)
def test_weights_may_lie_on_another_device_than_the_call(sd15_unet: Any, hooks: str) -> None:
    """The call is on `meta`, the weights stay on the CPU, as with ComfyUI's lowvram."""
    network = _casting(sd15_unet)
    model = ModelPatcher(Casting(network), "cpu", "cpu")
    model.model.model_sampling.to("meta")
    out = _predict(HOOKS[hooks](model, sd15_unet), "meta")
    assert out.is_meta and out.shape == (2, 4, *SIZE)
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
