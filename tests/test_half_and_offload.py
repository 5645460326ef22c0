"""Hooks on models in half precision, with weights in fp8 that are cast on use, and with weights that lie elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tessera.guidance import flux_negative
from tessera.host.models.model_base import SD15, Flux
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.hooks import KEY
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.nodes.flux_negative import TesseraFluxNegative
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tessera.nodes.seamless import TesseraSeamlessModel
from tessera.patching.wrappers import installed
from tessera.tiling.hooks import PERIOD, SEED
from tiny_adapters import Encoder, plain_image, random_adapter, random_xlabs
from torch import Tensor, nn
from torch.nn import functional as F

HALVES = [torch.float16, torch.bfloat16]
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


class CastRMSNorm(nn.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(x)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


CASTS = {
    nn.Linear: CastLinear,
    nn.Conv2d: CastConv2d,
    nn.GroupNorm: CastGroupNorm,
    nn.LayerNorm: CastLayerNorm,
    nn.RMSNorm: CastRMSNorm,
}


def _casting(network: Any, dtype: torch.dtype | None = None) -> Any:
    """A copy whose layers cast on use; matrices and kernels in a dtype of storage."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if type(module) in CASTS:
            module.__class__ = CASTS[type(module)]
        if dtype is not None and isinstance(module, (nn.Linear, nn.Conv2d)):
            module.weight.data = module.weight.data.to(dtype)
    return copied


class CastingSD15(SD15):
    """A model that computes in another dtype than its weights have."""

    def get_dtype_inference(self) -> torch.dtype:
        return torch.float32


class CastingFlux(Flux):
    """A model that computes in another dtype than its weights have."""

    def get_dtype_inference(self) -> torch.dtype:
        return torch.float32


FAMILIES: dict[str, tuple[str, Any, Any]] = {
    "sd15": ("sd15_unet", SD15, CastingSD15),
    "flux": ("flux_transformer", Flux, CastingFlux),
}
"""By kind the fixture of its network, the model, and the model whose weights are cast on use."""


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


def _negative(model: Any, _: Any) -> Any:
    text = [[_noise(2, 1, 5, 16), {"pooled_output": torch.ones(1, 24)}]]
    return TesseraFluxNegative.execute(model, text, 4.0, "nag_strong", 0.0, 1.0).args[0]


def _all(model: Any, network: Any) -> Any:
    return _negative(_both(model, network), network)


HOOKS: dict[str, Callable[[Any, Any], Any]] = {
    "images": _images,
    "seamless": _seamless,
    "both": _both,
    "negative": _negative,
    "all": _all,
}
CASES = [("sd15", hooks) for hooks in ("images", "seamless", "both")] + [("flux", hooks) for hooks in HOOKS]

READS_POSITIONS = [("flux", hooks) for hooks in ("seamless", "both", "all")]
"""The first call of a torus reads the positions of tokens, and `meta` has no values."""


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _predict(model: Any, device: str = "cpu") -> Tensor:
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers}
    to |= {"cond_or_uncond": [1, 0], PERIOD: SIZE, SEED: 1}
    to[flux_negative.KEY] = flux_negative.RunState(_noise(2, 1, 5, 16).to(device))
    flux, generator = isinstance(model.model, Flux), torch.Generator().manual_seed(1)
    shapes = {"x": (2, 16 if flux else 4, *SIZE), "c_crossattn": (2, 7, 16)} | ({"y": (2, 24)} if flux else {})
    inputs = {name: torch.randn(shape, generator=generator).to(device) for name, shape in shapes.items()}
    extra = {"guidance": torch.full((2,), 3.5, device=device)} if flux else {}
    return model.model.apply_model(**inputs, **extra, t=torch.full((2,), 0.9, device=device), transformer_options=to)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).norm() / b.float().norm())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("kind", "hooks"), CASES)
def test_half_precision_is_off_by_its_rounding(
    kind: str, hooks: str, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    fixture, family, _ = FAMILIES[kind]
    network = _louder(request.getfixturevalue(fixture))
    full, half = (ModelPatcher(family(copy.deepcopy(network).to(d)), "cpu", "cpu") for d in (torch.float32, dtype))
    plain = _distance(_predict(half), _predict(full))
    assert plain > 0
    hooked, exact = HOOKS[hooks](half, network), HOOKS[hooks](full, network)
    # Layers between round as well: the plain network says how much.
    assert _distance(_predict(exact), _predict(full)) > 0.01, "does nothing"
    assert _distance(_predict(hooked), _predict(exact)) < 2 * plain
    assert _kept(hooked) <= {dtype}


def _louder(network: Any) -> Any:
    """A copy in which attention counts, as in trained networks."""
    network = copy.deepcopy(network)
    for name, parameter in network.named_parameters():
        if "attn" in name and parameter.dim() == 2:
            parameter.data *= 8
    return network


def _kept(model: Any) -> set[torch.dtype]:
    """The dtypes of what images keep for a run."""
    images = installed(model, KEY)
    return {parameter.dtype for parameter in images.kept.stack.parameters()} if images else set()


@pytest.mark.parametrize(("kind", "hooks"), CASES)
def test_weights_in_fp8_are_cast_on_use(kind: str, hooks: str, request: pytest.FixtureRequest) -> None:
    """As with the same weights in float32; what is kept has the dtype of computing."""
    fixture, family, casting = FAMILIES[kind]
    network = request.getfixturevalue(fixture)
    stored = _casting(network, torch.float8_e4m3fn)
    rounded = copy.deepcopy(network)
    for mine, other in zip(rounded.parameters(), stored.parameters(), strict=True):
        mine.data = other.data.float()
    before = {name: t.clone() for name, t in stored.state_dict().items()}
    cast, full = ModelPatcher(casting(stored), "cpu", "cpu"), ModelPatcher(family(rounded), "cpu", "cpu")
    hooked = HOOKS[hooks](cast, network)
    assert _distance(_predict(hooked), _predict(HOOKS[hooks](full, network))) < 1e-5
    after = stored.state_dict()
    assert all(
        t.dtype == before[name].dtype and torch.equal(t.float(), before[name].float()) for name, t in after.items()
    )
    assert _kept(hooked) <= {torch.float32}


@pytest.mark.parametrize(("kind", "hooks"), [case for case in CASES if case not in READS_POSITIONS])
def test_weights_may_lie_on_another_device_than_the_call(kind: str, hooks: str, request: pytest.FixtureRequest) -> None:
    """The call is on `meta`, the weights stay on the CPU, as with ComfyUI's lowvram."""
    fixture, _, casting = FAMILIES[kind]
    network = request.getfixturevalue(fixture)
    stored = _casting(network)
    model = ModelPatcher(casting(stored), "cpu", "cpu")
    model.model.model_sampling.to("meta")
    out = _predict(HOOKS[hooks](model, network), "meta")
    assert out.is_meta and out.shape == (2, 16 if kind == "flux" else 4, *SIZE)
    assert {parameter.device.type for parameter in stored.parameters()} == {"cpu"}
