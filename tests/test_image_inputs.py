"""What Image Prompt and its like take: strengths beyond 0..1, negative images, batches, wide images, types, faces."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from margins import within
from naming import naming
from prompted import sample
from tessera.contract import add_lora
from tessera.host.models.model_base import SD15
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter import features
from tessera.ip_adapter.faces import Face, lora_of
from tessera.ip_adapter.features import Sight, see, tiles_of
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.layers import Layer, find_layers
from tessera.ip_adapter.presets import against_of_type, weight_at, weights_of_type
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter, tokens_of
from tessera.ip_adapter.reference import Place
from tessera.nodes.image_prompts import TesseraApplyImagePrompts, TesseraImagePrompt
from tessera.nodes.references import TesseraLoadReference
from tiny_adapters import Encoder, plain_image, random_adapter, random_lora
from torch import Tensor

KINDS = ["base", "plus", "full"]


@pytest.fixture
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


def _load(model: ModelPatcher, kind: str = "base") -> LoadedAdapter:
    return LoadedAdapter(parse_adapter(random_adapter(model.model.diffusion_model, kind), kind), Encoder())


def _prompt(image: Tensor, **more: Any) -> tuple[ImagePrompt, ...]:
    return TesseraImagePrompt.execute(image, **{"type": "full", **more}).args[0]


def _predict(model: Any, loaded: LoadedAdapter | None, prompts: Any, combine: str = "sum") -> Tensor:
    """Rows: the negative prompt and the positive one."""
    applied = TesseraApplyImagePrompts.execute(model, prompts, combine, loaded).args[0]
    to = {**applied.model_options["transformer_options"], "wrappers": applied.wrappers, "cond_or_uncond": [1, 0]}
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 4, 16, 24, generator=generator), torch.randn(2, 7, 16, generator=generator)
    return model.model.apply_model(x, torch.tensor([3.0, 3.0]), c_crossattn=text, transformer_options=to)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# Strength


def test_a_limit_multiplies_the_scale(model: ModelPatcher) -> None:
    loaded, image = _load(model), plain_image(0.3)
    assert torch.equal(
        _predict(model, loaded, _prompt(image, scale=0.4, limit=2.0)),
        _predict(model, loaded, _prompt(image, scale=0.8)),
    )
    blocks = {"blocks": "all=-0.6"}
    negative = _predict(model, loaded, _prompt(image, scale=0.6, limit=-1.0))
    assert within(_distance(negative, _predict(model, loaded, _prompt(image, scale=1.0, **blocks))), 1e-6)
    plain = _predict(model, loaded, _prompt(image, scale=0.0))
    assert _distance(negative, plain) > 1e-3


def test_an_image_and_its_negative_cancel(model: ModelPatcher) -> None:
    loaded, image = _load(model), plain_image(0.3)
    both = (*_prompt(image, scale=0.6), *_prompt(image, scale=0.6, limit=-1.0))
    assert within(_distance(_predict(model, loaded, both), _predict(model, loaded, _prompt(image, scale=0.0))), 1e-5)


def test_negative_strength_cannot_be_shared(model: ModelPatcher) -> None:
    with pytest.raises(ValueError, match="share.*above 0.*sum"):
        _predict(model, _load(model), _prompt(plain_image(0.3), limit=-0.5), "share")


def test_a_saved_reference_has_a_limit() -> None:
    (prompt,) = TesseraLoadReference.execute("red zigzag (demo)", limit=2.5).args[0]
    assert prompt.limit == 2.5


# What guidance pushes away from


@pytest.mark.parametrize("kind", KINDS)
def test_a_negative_image_is_what_negative_prompts_see(model: ModelPatcher, kind: str) -> None:
    loaded, one, other = _load(model, kind), plain_image(0.3), plain_image(0.9)
    found = _predict(model, loaded, _prompt(one, negative_image=other))
    positive, swapped = (
        _predict(model, loaded, _prompt(one)),
        _predict(model, loaded, _prompt(other, negative_image=one)),
    )
    torch.testing.assert_close(found[1], positive[1])
    assert _distance(found[0], positive[0]) > 1e-4
    same = _predict(model, loaded, _prompt(one, negative_image=one))
    assert _distance(swapped[0], found[0]) > 1e-4
    torch.testing.assert_close(swapped[0], same[0])


# Batches


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_averaged_to_one_reference(model: ModelPatcher, kind: str) -> None:
    """The mean of what the encoder sees; of an image and itself, the image."""
    loaded, images = _load(model, kind), torch.cat([plain_image(0.1), plain_image(0.9)])
    (averaged,) = _prompt(images, batch="average")
    read = "image_embeds" if kind == "base" else "penultimate_hidden_states"
    ((seen, _),) = see(loaded.adapter, loaded.encoder, [Sight(averaged.source)])
    torch.testing.assert_close(seen[0], getattr(Encoder().encode_image(images), read).mean(0))
    twice = _prompt(plain_image(0.4).repeat(2, 1, 1, 1), batch="average")
    assert within(_distance(_predict(model, loaded, twice), _predict(model, loaded, _prompt(plain_image(0.4)))), 1e-6)
    assert len(_prompt(images)) == 2


def test_every_image_of_a_batch_may_have_a_mask() -> None:
    images, masks = torch.rand(3, 16, 16, 3), torch.rand(3, 8, 8)
    stack = _prompt(images, mask=masks)
    assert all(torch.equal(each.mask, mask) for each, mask in zip(stack, masks, strict=True))
    assert all(each.mask is not None for each in _prompt(images, mask=masks[:1]))


@pytest.mark.parametrize(
    ("image", "more", "words"),
    [
        (torch.rand(3, 16, 16, 3), {"mask": torch.ones(2, 8, 8)}, naming("2 masks", "3 images")),
        (torch.rand(1, 16, 16, 3), {"mask": torch.ones(3, 8, 8)}, naming("3 masks", "1 image")),
        (torch.rand(3, 16, 16, 3), {"mask": torch.ones(3, 8, 8), "batch": "average"}, naming("3 masks", "1 image")),
        (torch.rand(200, 16, 16, 3), {}, naming("image prompts", 200, 100)),
        ([torch.rand(1, 16, 16, 3), torch.rand(1, 16, 32, 3)], {}, naming("list of 2", "16 x 16", "32 x 16")),
        (
            torch.rand(1, 16, 16, 3),
            {"negative_image": torch.rand(2, 16, 16, 3)},
            naming("negative_image", "batch of 2"),
        ),
    ],
)
def test_batches_that_do_not_go_together_are_refused(image: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        _prompt(image, **more)
    assert "\n" not in str(refused.value)


# Wide images


@pytest.mark.parametrize(
    ("height", "width", "count"), [(64, 64, 1), (64, 66, 1), (64, 96, 2), (300, 100, 3), (10, 999, 8)]
)
def test_tiles_cover_a_wide_image(height: int, width: int, count: int) -> None:
    image = torch.arange(float(height * width)).view(1, height, width, 1)
    tiles = tiles_of(image)
    side = min(height, width)
    assert [tuple(tile.shape[1:3]) for tile in tiles] == [(side, side)] * count
    if count < features.MOST_TILES and count > 1:
        assert len(torch.cat([tile.flatten() for tile in tiles]).unique()) == height * width


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_act_side_by_side(model: ModelPatcher, kind: str) -> None:
    """Of a square, tiles are the crop; of an image whose halves differ, neither half alone."""
    loaded, left, right = _load(model, kind), plain_image(0.1), plain_image(0.9)
    square = _predict(model, loaded, _prompt(left, fit="tiles"))
    assert within(_distance(square, _predict(model, loaded, _prompt(left))), 1e-6)
    wide = torch.cat([left, right], 2)
    (tokens,) = tokens_of(list(_prompt(wide, fit="tiles")), loaded, Place())
    halves = tokens_of([*_prompt(left), *_prompt(right)], loaded, Place())
    torch.testing.assert_close(tokens[0], torch.cat([half[0] for half in halves]))
    assert tokens.shape[1] == 2 * halves[0].shape[1]
    both = _predict(model, loaded, _prompt(wide, fit="tiles"))
    for other in (left, right):
        assert _distance(both, _predict(model, loaded, _prompt(other))) > 1e-4


# Types

SD15_ORDER = [f"down_blocks.{b}.attentions.{a}" for b in range(3) for a in range(2)] + ["mid_block.attentions.0"]
SD15_ORDER += [f"up_blocks.{b}.attentions.{a}" for b in (1, 2, 3) for a in range(3)]
SDXL_ORDER = [f"down_blocks.{b}.attentions.{a}" for b in (1, 2) for a in range(2)] + ["mid_block.attentions.0"]
SDXL_ORDER += [f"up_blocks.{b}.attentions.{a}" for b in range(2) for a in range(3)]
"""Transformers in the order in which they run, by which ComfyUI_IPAdapter_plus counts."""

THEIRS = {
    ("sd15", "style_transfer"): (dict.fromkeys([0, 1, 2, 3, *range(9, 16)], 1.0), {}),
    ("sd15", "style_precise"): (dict.fromkeys([0, 1, 2, 3, *range(9, 16)], 1.0), {4: 0.25, 5: 1.0}),
    ("sd15", "composition_precise"): (
        {4: 0.25, 5: 1.0},
        dict.fromkeys([0, 1, 2, 3, *range(9, 16)], 1.0) | dict.fromkeys([6, 7, 8], 0.1),
    ),
    ("sdxl", "style_transfer"): ({6: 1.0}, {}),
    ("sdxl", "style_precise"): ({6: 1.0}, {3: 1.0}),
    ("sdxl", "composition_precise"): ({3: 1.0}, dict.fromkeys([0, 1, 2, 4, 5, 7, 8, 9, 10], 0.1) | {6: 1.0}),
}
"""Weights of its types "style transfer", "style transfer precise" and "composition precise": where positive prompts see
the image, and where negative ones do."""


@pytest.mark.parametrize(("family", "kind"), THEIRS)
def test_types_of_the_other_pack_have_its_weights(family: str, kind: str) -> None:
    order = SD15_ORDER if family == "sd15" else SDXL_ORDER
    deep = [0] if family == "sd15" else [0, 1]
    layers = [Layer(1, ("x", 0, i), f"{name}.transformer_blocks.{i}", 1, 1, 1) for name in order for i in deep]
    for weights, expected in zip(
        (weights_of_type(kind, layers), against_of_type(kind, layers)), THEIRS[(family, kind)], strict=True
    ):
        found = {order.index(layer.name.split(".transformer")[0]): weight_at(weights, layer) for layer in layers}
        assert {place: weight for place, weight in found.items() if weight} == expected


def test_precise_types_show_the_image_to_negative_prompts(model: ModelPatcher) -> None:
    loaded = _load(model)
    plain = _predict(model, loaded, _prompt(plain_image(0.3), scale=0.0))
    transfer, precise = (
        _predict(model, loaded, _prompt(plain_image(0.3), type=kind)) for kind in ("style_transfer", "style_precise")
    )
    torch.testing.assert_close(precise[1], transfer[1])
    assert _distance(precise[0], transfer[0]) > 1e-4
    assert _distance(transfer[0], plain[0]) > 1e-4


# The LoRA of a FaceID file


def test_the_lora_of_a_faceid_file_is_added_once_and_said(model: ModelPatcher) -> None:
    """Also where its own file has been loaded before, with another strength."""
    network = model.model.diffusion_model
    weights = random_adapter(network, "face")
    weights["ip_adapter"] |= random_lora(network)
    loaded = LoadedAdapter(parse_adapter(weights, "ip-adapter-faceid_sd15.bin"), None)
    prompts = (ImagePrompt(plain_image(0.3), 0.7, "full", face=Face(torch.randn(512))),)
    from_file = add_lora(model, lora_of(loaded.adapter, find_layers(network)), 0.6)
    random = {key: torch.randn_like(t) for key, t in lora_of(loaded.adapter, find_layers(network)).items()}
    other = add_lora(model, random, 0.6)
    counts = {}
    for name, base, strength, words in (
        ("plain", model, 1.0, "holds a LoRA.*added with strength 1; a LoRA loader"),
        ("loaded", from_file, 1.0, "has already from a LoRA loader; it is not added again"),
        ("another", other, 1.0, "added with strength 1"),
        ("off", model, 0.0, "which is off"),
    ):
        applied, report = TesseraApplyImagePrompts.execute(base, prompts, "sum", loaded, strength).args
        counts[name] = max((len(each) for each in applied.patches.values()), default=0)
        assert re.search(words, report), report
    assert counts == {"plain": 1, "loaded": 1, "another": 2, "off": 0}
    first, _ = TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded).args
    again, report = TesseraApplyImagePrompts.execute(first, prompts, "sum", loaded).args
    assert "another node has added" in report
    assert max(len(each) for each in again.patches.values()) == 1


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_the_lora_of_a_faceid_file_is_refused_behind_the_node(model: ModelPatcher, strength: float) -> None:
    """Another LoRA is not, nor the same behind a node that adds none."""
    network = model.model.diffusion_model
    weights = random_adapter(network, "face")
    weights["ip_adapter"] |= random_lora(network)
    loaded = LoadedAdapter(parse_adapter(weights, "ip-adapter-faceid_sd15.bin"), None)
    own = lora_of(loaded.adapter, find_layers(network))
    prompts = (ImagePrompt(plain_image(0.3), 0.7, "full", face=Face(torch.randn(512))),)
    applied, off = (
        TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded, lora).args[0] for lora in (1.0, 0.0)
    )
    with pytest.raises(ValueError, match=naming("ip-adapter-faceid_sd15.bin", "twice", "face_lora", 0)) as refused:
        sample(add_lora(applied, own, strength))
    assert "\n" not in str(refused.value)
    sample(add_lora(applied, {key: torch.randn_like(tensor) for key, tensor in own.items()}, strength))
    sample(add_lora(off, own, strength))


def test_the_report_counts_images_layers_and_memory(model: ModelPatcher) -> None:
    loaded = _load(model, "plus")
    prompts = (*_prompt(plain_image(0.3)), *_prompt(plain_image(0.8), type="style"))
    report = TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded).args[1]
    assert "2 images in 10 of 10 cross-attention layers" in report
    assert TesseraApplyImagePrompts.execute(model, _prompt(plain_image(0.3), scale=0.0), "sum", loaded).args == (
        model,
        "No image acts: every scale, or every weight of blocks, is 0.",
    )
