"""Image prompts together with areas of conditionings, and with other packs' replacements of attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from margins import within
from naming import naming
from tessera.host.models.attention_hooks import optimized_attention
from tessera.host.models.model_base import SD15, SDXL
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.conds import add_cond_for_area
from tessera.host.sampling.ksampler import KSampler
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.layers import find_layers
from tessera.ip_adapter.masks import cut
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.ip_adapter.run import RunMemory
from tessera.ip_adapter.stack import KeptImages
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tiny_adapters import Encoder, plain_image, random_adapter
from torch import Tensor

SHAPE = (1, 4, 16, 32)
LEFT, RIGHT = (16, 16, 0, 0), (16, 16, 0, 16)


@pytest.fixture
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


def _load(model: ModelPatcher) -> LoadedAdapter:
    return LoadedAdapter(parse_adapter(random_adapter(model.model.diffusion_model), "base"), Encoder())


def _apply(model: Any, loaded: LoadedAdapter, mask: Tensor | None = None, **more: Any) -> Any:
    prompt = ImagePrompt(plain_image(0.3), 0.7, "full", mask=mask)
    return TesseraApplyImagePrompts.execute(model, (prompt,), "sum", loaded, **more).args[0]


def _text(value: float, **options: Any) -> list[list[Any]]:
    text = torch.linspace(-value, value, 77 * 16).view(1, 77, 16)
    return [[text, {"pooled_output": torch.ones(1, 16), **options}]]


def _sample(model: Any, positive: list[list[Any]], cfg: float = 1.0) -> Tensor:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
    run = KSampler(model, 1, "euler", "normal")
    return run.sample(noise, positive, _text(-2.0), cfg, torch.zeros_like(noise), seed=1)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# Areas of conditionings


def _halves(size: tuple[int, int]) -> Tensor:
    mask = torch.zeros(size)
    mask[:, : size[1] // 2] = 1
    return mask


@pytest.mark.parametrize("size", [(16, 32), (128, 256), (40, 80)])
@pytest.mark.parametrize("apart", [False, True])
def test_a_mask_is_cut_to_the_area_of_a_conditioning(model: ModelPatcher, size: tuple[int, int], apart: bool) -> None:
    """Two areas of one size run in one batch: the image acts in that which its mask covers, and not in the other."""
    loaded, areas = _load(model), [*_text(1.0, area=LEFT), *_text(0.5, area=RIGHT)]
    found = _sample(_apply(model, loaded, _halves(size), keep_apart=apart), areas)
    everywhere, plain = _sample(_apply(model, loaded), areas), _sample(model, areas)
    assert within(_distance(found[..., :16], everywhere[..., :16]), 1e-4 if apart else 1e-5)
    assert within(_distance(found[..., 16:], plain[..., 16:]), 1e-4 if apart else 1e-5)
    assert _distance(found[..., :16], plain[..., :16]) > 1e-3


def test_an_area_sees_its_part_of_a_mask(model: ModelPatcher) -> None:
    """As a run over that part alone would see a mask of it."""
    loaded = _load(model)
    mask = torch.rand(128, 256, generator=torch.Generator().manual_seed(1))
    whole = _apply(model, loaded, mask), _apply(model, loaded, mask[:, 64:192])
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
    area = _sample(whole[0], _text(1.0, area=(16, 16, 0, 8)))[..., 8:24]
    part = noise[..., 8:24]
    alone = KSampler(whole[1], 1, "euler", "normal").sample(
        part, _text(1.0), _text(-2.0), 1.0, torch.zeros_like(part), seed=1
    )
    assert within(_distance(area, alone), 1e-5)


def test_parts_of_masks() -> None:
    mask = torch.arange(8 * 16.0).view(8, 16)
    assert torch.equal(cut(mask, (4, 8), (2, 4, 1, 2)), mask[2:6, 4:12])
    # A mask of another resolution is averaged to latents first.
    assert torch.equal(cut(torch.ones(5, 7), (4, 8), (2, 4, 1, 2)), torch.ones(2, 4))


def test_the_partner_of_an_area_is_negative() -> None:
    """A host gives the other prompt a conditioning with the area and the identity of the first."""
    positive: list[Any] = [{"uuid": "p", "area": LEFT, "model_conds": {}}]
    negative: list[Any] = [{"uuid": "n", "model_conds": {}}]
    add_cond_for_area(negative, positive[0])
    assert [each["uuid"] for each in negative] == ["n", "p"]
    names = {"p": "positive", "n": "negative"}
    memory = RunMemory(KeptImages((), (), torch.float32), (16, 32), (), names)
    for number, conds in enumerate((positive, negative)):
        memory.note(number, conds)
    assert [memory.role(0, "p"), memory.role(1, "n"), memory.role(1, "p")] == [0, 1, 1]


def test_tiles_of_another_extension_are_refused(model: ModelPatcher) -> None:
    """What cuts the image without a conditioning that asks for it."""
    tiled = _apply(model, _load(model), _halves((16, 32)))

    def cut_call(apply_model: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        apply_model(given["input"][..., :8], given["timestep"], **given["c"])
        return apply_model(given["input"], given["timestep"], **given["c"])

    tiled.set_model_unet_function_wrapper(cut_call)
    with pytest.raises(ValueError, match=naming("8 x 16 of 32 x 16", "masks", "tiles")):
        _sample(tiled, _text(1.0))


# Other packs


def other(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
    """The text's attention, turned round."""
    return -4 * optimized_attention(q, k, v, extra["n_heads"])


class Chain:
    """A replacement to which its pack adds, as ComfyUI_IPAdapter_plus does."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.functions = [function]

    def add(self, function: Callable[..., Tensor]) -> None:
        self.functions.append(function)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        return sum((each(q, k, v, extra) for each in self.functions), torch.zeros(()))


def _install(model: Any, keys: str, function: Callable[..., Tensor] = other) -> Any:
    """Replace every cross-attention, under one form of the key; add where something is there already."""
    clone = model.clone()
    for layer in find_layers(model.model.diffusion_model):
        key = layer.key if keys == "with index" else layer.key[:2]
        there = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
        if key in there:
            there[key].add(function)
        else:
            clone.set_model_attn2_replace(Chain(function), *key)
    return clone


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("keys", ["with index", "without"])
def test_another_pack_acts_before_or_after_ours(kind: str, keys: str, request: pytest.FixtureRequest) -> None:
    network = request.getfixturevalue(f"{kind}_unet")
    model = ModelPatcher((SDXL if kind == "sdxl" else SD15)(network), "cpu", "cpu")
    loaded = _load(model)
    images, theirs = _apply(model, loaded), _install(model, keys)
    before, after = _sample(_apply(theirs, loaded), _text(1.0)), _sample(_install(images, keys), _text(1.0))
    assert torch.equal(before, after)
    only_images, only_theirs, plain = (_sample(each, _text(1.0)) for each in (images, theirs, model))
    for alone in (only_images, only_theirs, plain):
        assert _distance(before, alone) > 1e-4


def test_both_effects_are_added_in_a_layer(model: ModelPatcher) -> None:
    """What our layers add does not depend on what is there."""
    loaded = _load(model)
    nothing = _install(model, "without", lambda q, *_: torch.zeros_like(q))
    keep: list[Tensor] = []

    def note(n: Tensor, _: Any) -> Tensor:
        keep.append(n)
        return n

    def first_layer(patched: Any) -> Tensor:
        watched = patched.clone()
        watched.set_model_patch(note, "attn2_output_patch")
        keep.clear()
        _sample(watched, _text(1.0))
        return keep[0]

    bias = find_layers(model.model.diffusion_model)[0]
    linear: Any = model.model.diffusion_model.get_submodule(f"{bias.name}.attn2.to_out.0")
    alone = first_layer(_apply(nothing, loaded)) - linear.bias
    both = first_layer(_apply(_install(model, "without"), loaded))
    torch.testing.assert_close(both - first_layer(_install(model, "without")), alone, atol=1e-5, rtol=1e-4)


def test_a_chain_of_three_packs(model: ModelPatcher) -> None:
    """Theirs, ours, and theirs once more, added to the object of the first."""
    loaded = _load(model)
    chain = _install(_apply(_install(model, "without"), loaded), "without")
    twice = _apply(_install(_install(model, "without"), "without"), loaded)
    assert torch.equal(_sample(chain, _text(1.0)), _sample(twice, _text(1.0)))


def test_what_another_pack_returns_stays_its_own(model: ModelPatcher) -> None:
    """Images are added in place, but not into a tensor that a pack keeps."""
    kept: dict[Any, Tensor] = {}

    def cached(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        place = (*extra["block"], extra["block_index"])
        return kept.setdefault(place, other(q, k, v, extra))

    both = _apply(_install(model, "with index", lambda *each: cached(*each)), _load(model))
    first = _sample(both, _text(1.0))
    assert torch.equal(_sample(both, _text(1.0)), first)
