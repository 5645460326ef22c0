"""Image prompts on models of the embedded host, against diffusers' own IP-Adapter."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from double_precision import double_precision
from margins import within
from prompted import SHAPE, apply, distance, inputs_of, load_for, predict, prompts_of, sample
from tessera.host.models.model_base import SD15, SDXL
from tessera.host.runtime.patcher import ModelPatcher
from tiny_adapters import TOKENS, Encoder, plain_image, random_adapter
from torch import Tensor
from torch.nn import functional as F

KINDS = ["base", "plus", "full"]


@pytest.fixture(params=["sd15", "sdxl"])
def model(request: pytest.FixtureRequest) -> ModelPatcher:
    unet = request.getfixturevalue(f"{request.param}_unet")
    return ModelPatcher((SD15 if request.param == "sd15" else SDXL)(unet), "cpu", "cpu")


@pytest.fixture
def sd15(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


# Against diffusers


def _reference(model: ModelPatcher, adapters: list[dict[str, Any]], scales: list[float]) -> Any:
    """The same UNet with diffusers' own processors."""
    unet: Any = UNet2DConditionModel.from_config(model.model.diffusion_model.config)
    unet.load_state_dict(model.model.diffusion_model.state_dict())
    unet._load_ip_adapter_weights(adapters, low_cpu_mem_usage=False)
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = scales
    return unet.eval().requires_grad_(False)


def _seen(kind: str, colours: Sequence[float]) -> Tensor:
    """What diffusers' pipelines hand to the UNet: (2, images, ...), the unconditional ones first."""
    encoder = Encoder()
    outputs = [encoder.encode_image(plain_image(colour)) for colour in colours]
    if kind == "base":
        found = torch.stack([output.image_embeds[0] for output in outputs])
        return torch.stack([torch.zeros_like(found), found])
    blank = encoder.encode_image(torch.tensor([0.48145466, 0.4578275, 0.40821073]).expand(1, 8, 8, 3))
    found = torch.stack([output.penultimate_hidden_states[0] for output in outputs])
    return torch.stack([blank.penultimate_hidden_states[0].expand_as(found), found])


def _diffusers(model: ModelPatcher, unet: Any, seen: list[Tensor], inputs: dict[str, Any], **kwargs: Any) -> Tensor:
    base = model.model
    scaled = base.model_sampling.calculate_input(inputs["t"], inputs["x"])
    added = {"image_embeds": seen}
    if "y" in inputs:
        added |= {"text_embeds": inputs["y"], "time_ids": inputs["time_ids"]}
    out = unet(
        scaled,
        base.model_sampling.timestep(inputs["t"]).float(),
        inputs["c_crossattn"],
        added_cond_kwargs=added,
        cross_attention_kwargs=kwargs or None,
    ).sample
    return base.model_sampling.calculate_denoised(inputs["t"], out, inputs["x"])


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_equals_diffusers(model: ModelPatcher, kind: str) -> None:
    adapter, inputs = random_adapter(model.model.diffusion_model, kind), inputs_of(model)
    unet = _reference(model, [adapter], [0.7])
    ours = predict(apply(model, load_for(model, kind), prompts_of(0.3)), inputs)
    assert within(distance(ours, _diffusers(model, unet, [_seen(kind, [0.3])], inputs)), 1e-5)
    assert distance(ours, predict(model, inputs)) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_equals_several_adapters_and_concat_several_images_in_diffusers(model: ModelPatcher, kind: str) -> None:
    adapter, inputs, colours = random_adapter(model.model.diffusion_model, kind), inputs_of(model), [0.1, 0.5, 0.9]
    stack = [each for colour, s in zip(colours, (0.9, 0.5, 0.2), strict=True) for each in prompts_of(colour, scale=s)]
    unet = _reference(model, [adapter] * 3, [0.9, 0.5, 0.2])
    expected = _diffusers(model, unet, [_seen(kind, [colour]) for colour in colours], inputs)
    assert within(distance(predict(apply(model, load_for(model, kind), stack), inputs), expected), 1e-5)
    unet = _reference(model, [adapter], [0.7])
    expected = _diffusers(model, unet, [_seen(kind, colours)], inputs)
    ours = predict(apply(model, load_for(model, kind), prompts_of(*colours), "concat"), inputs)
    assert within(distance(ours, expected), 1e-5)


def _halves(size: tuple[int, int]) -> list[Tensor]:
    left = torch.zeros(size)
    left[:, : size[1] // 2] = 1
    return [left, 1 - left]


def _soft(size: tuple[int, int]) -> list[Tensor]:
    return list(torch.rand(3, *size, generator=torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("make", [_halves, _soft])
def test_masks_equal_diffusers(model: ModelPatcher, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processors get the masks in each attention's grid as ours do: averaged, not resampled with a cubic."""
    (height, width), scales, colours = SHAPE[-2:], [0.9, 0.4, 0.6], [0.1, 0.9, 0.4]
    grids = []

    def averaged(mask: Tensor, batch: int, pixels: int, channels: int) -> Tensor:
        grids.append((round((pixels * height / width) ** 0.5), round((pixels * width / height) ** 0.5)))
        return F.adaptive_avg_pool2d(mask, grids[-1]).reshape(1, pixels, 1).expand(batch, -1, channels)

    masks = make((8 * height, 8 * width))
    n = len(masks)
    adapter, inputs = random_adapter(model.model.diffusion_model), inputs_of(model)
    stack = [
        each
        for colour, scale, mask in zip(colours[:n], scales[:n], masks, strict=True)
        for each in prompts_of(colour, scale=scale, mask=mask)
    ]
    monkeypatch.setattr(IPAdapterMaskProcessor, "downsample", staticmethod(averaged))
    unet = _reference(model, [adapter] * n, scales[:n])
    seen = [_seen("base", [colour]) for colour in colours[:n]]
    given = [mask[None, None] for mask in masks]
    expected = _diffusers(model, unet, seen, inputs, ip_adapter_masks=given)
    ours = predict(apply(model, load_for(model), stack), inputs)
    assert within(distance(ours, expected), 1e-5)
    assert len(set(grids)) > 1
    monkeypatch.undo()
    sampled = distance(ours, _diffusers(model, unet, seen, inputs, ip_adapter_masks=given))
    # A cubic looks at a few points of a cell: at the halves of an image it sees what the average does.
    assert within(sampled, 1e-5) if make is _halves else 1e-3 < sampled < 0.1


def test_adapters_with_other_token_counts_act_together(sd15: ModelPatcher) -> None:
    inputs, plain = inputs_of(sd15), None
    assert TOKENS["base"] != TOKENS["plus"]
    base, plus = load_for(sd15, "base"), load_for(sd15, "plus", 1)
    plain = predict(sd15, inputs)
    both = predict(apply(apply(sd15, base, prompts_of(0.1)), plus, prompts_of(0.9)), inputs)
    unet = _reference(
        sd15,
        [random_adapter(sd15.model.diffusion_model, "base", 0), random_adapter(sd15.model.diffusion_model, "plus", 1)],
        [0.7, 0.7],
    )
    expected = _diffusers(sd15, unet, [_seen("base", [0.1]), _seen("plus", [0.9])], inputs)
    assert within(distance(both, expected), 1e-5)
    assert distance(both, plain) > 1e-3


# Off is off


@pytest.mark.parametrize("combine", ["sum", "share", "concat"])
def test_scale_zero_and_inactive_steps_are_as_if_the_image_were_absent(sd15: ModelPatcher, combine: str) -> None:
    loaded, plain = load_for(sd15), sample(sd15)
    assert torch.equal(sample(apply(sd15, loaded, prompts_of(0.3, scale=0.0), combine)), plain)
    late = prompts_of(0.3, start=0.6, end=0.7)  # the three steps are at 0, 0.5 and 1
    assert torch.equal(sample(apply(sd15, loaded, late, combine)), plain)
    one = sample(apply(sd15, loaded, prompts_of(0.8), combine))
    for absent in (prompts_of(0.3, scale=0.0), late):
        assert torch.equal(sample(apply(sd15, loaded, [*absent, *prompts_of(0.8)], combine)), one)


def test_a_range_bounds_the_steps(sd15: ModelPatcher) -> None:
    loaded, plain = load_for(sd15), sample(sd15)
    early, late = (sample(apply(sd15, loaded, prompts_of(0.3, start=a, end=b))) for a, b in ((0.0, 0.4), (0.6, 1.0)))
    whole = sample(apply(sd15, loaded, prompts_of(0.3)))
    found = [plain, early, late, whole]
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[i + 1 :])


def test_share_with_one_image_equals_the_sum(model: ModelPatcher) -> None:
    with double_precision():
        exact = ModelPatcher(copy.deepcopy(model.model).double(), "cpu", "cpu")
        loaded, inputs = load_for(exact, "plus"), inputs_of(exact)
        mask = torch.rand(16, 24)
        for prompts in (prompts_of(0.3), prompts_of(0.3, mask=mask)):
            share, total = (predict(apply(exact, loaded, prompts, c), inputs) for c in ("share", "sum"))
            assert share.dtype == torch.float64
            torch.testing.assert_close(share, total, atol=1e-9, rtol=1e-9)


def test_share_does_not_grow_with_copies(sd15: ModelPatcher) -> None:
    loaded, inputs = load_for(sd15), inputs_of(sd15)
    one, five = (predict(apply(sd15, loaded, prompts_of(*[0.3] * n), "share"), inputs) for n in (1, 5))
    assert within(distance(five, one), 1e-5)
    assert distance(predict(apply(sd15, loaded, prompts_of(*[0.3] * 5)), inputs), one) > 1e-3
