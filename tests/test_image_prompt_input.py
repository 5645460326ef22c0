"""Input that image prompts cannot use: refused in one line, before the first step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from naming import naming
from prompted import apply, load_for, prompts_of, sample
from tessera.host.models.model_base import SD15, SDXL
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter.formats import parse_adapter
from tessera.nodes.image_prompts import TesseraImagePrompt, TesseraLoadIPAdapter
from tiny_adapters import Encoder, random_adapter
from torch import Tensor


@pytest.fixture
def sd15(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


def _prompt(image: Tensor, **more: Any) -> Any:
    values = {"scale": 0.9, "type": "style", "start_percent": 0.0, "end_percent": 1.0, **more}
    return TesseraImagePrompt.execute(image, **values).args[0]


def test_grey_and_rgba_images_are_taken_and_batches_are_many_images() -> None:
    grey, rgba = torch.rand(1, 16, 16, 1), torch.rand(3, 16, 16, 4)
    stack = _prompt(rgba, previous=_prompt(grey))
    assert [each.source.shape for each in stack] == [(1, 16, 16, 3)] * 4
    assert torch.equal(stack[0].source[..., 0], grey[..., 0])


def test_a_large_batch_is_one_reference_where_it_is_averaged() -> None:
    (only,) = _prompt(torch.rand(200, 16, 16, 3), batch="average")
    assert isinstance(only.source, torch.Tensor) and only.source.shape == (200, 16, 16, 3)


@pytest.mark.parametrize(
    ("image", "more", "words"),
    [
        (torch.rand(1, 1, 1, 3), {}, naming("1 x 1", 8)),
        (torch.rand(0, 16, 16, 3), {}, "shape .0, 16, 16, 3."),
        (torch.rand(1, 16, 16, 2), {}, "grey, RGB or RGBA"),
        (torch.full((1, 16, 16, 3), torch.nan), {}, "not finite"),
        (torch.rand(101, 16, 16, 3), {}, naming("image prompts", 101, 1, 100, "average")),
        (
            torch.rand(1, 16, 16, 3),
            {"start_percent": 0.8, "end_percent": 0.2},
            naming("start_percent", 0.8, "end_percent", 0.2),
        ),
        (torch.rand(1, 16, 16, 3), {"mask": torch.zeros(1, 64, 64)}, "black everywhere"),
    ],
)
def test_images_that_cannot_be_used_are_refused(image: Tensor, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        _prompt(image, **more)
    assert "\n" not in str(refused.value)


def test_what_does_not_go_together_is_refused(sd15: ModelPatcher, sdxl_unet: Any) -> None:
    sdxl = ModelPatcher(SDXL(sdxl_unet), "cpu", "cpu")
    for model, loaded, prompts, words in (
        (sd15, load_for(sdxl), prompts_of(0.3), naming("cross-attention layers", 11, 10)),
        (sd15, load_for(sd15), (), "0 image prompts"),
        (sd15, None, prompts_of(0.3), "needs ip_adapter"),
        (sd15, load_for(sd15), prompts_of(0.3, blocks="up=1"), 'no block is called "up"'),
    ):
        with pytest.raises(ValueError, match=words):
            apply(model, loaded, prompts)


def test_embeddings_that_are_no_numbers_are_refused(sd15: ModelPatcher) -> None:
    loaded = load_for(sd15)
    loaded.encoder.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        apply(sd15, loaded, prompts_of(0.3))


def test_a_mask_of_another_shape_is_refused_before_the_first_step(sd15: ModelPatcher) -> None:
    calls = []
    applied = apply(sd15, load_for(sd15), prompts_of(0.3, mask=torch.ones(64, 64)))
    hook = sd15.model.diffusion_model.register_forward_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(ValueError, match=naming("64 x 64", "192 x 128")):
            sample(applied)
    finally:
        hook.remove()
    assert not calls


def test_the_wrong_encoder_is_named_when_it_is_loaded(sd15: ModelPatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    from tessera.nodes import image_prompts

    adapter = parse_adapter(random_adapter(sd15.model.diffusion_model, "plus"), "moss.safetensors")
    monkeypatch.setattr(image_prompts, "read_adapter", lambda _: adapter)
    for encoder, words in ((Encoder(24, 64), "moss.safetensors needs.*128.*patches of width 64"), (None, "no files")):
        with pytest.raises(ValueError, match=words):
            monkeypatch.setattr(image_prompts, "_adapter_path", lambda _: image_prompts.DEMO_ADAPTER / "x" / "y")
            TesseraLoadIPAdapter.execute("moss.safetensors", "auto", encoder)
