"""Image prompts: nothing leaks, nothing stacks, and each row of a batch sees what is its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from margins import within
from prompted import SHAPE, apply, distance, inputs_of, load_for, predict, prompts_of, sample
from tessera.host.models.model_base import SD15
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter.run import RunMemory
from tessera.ip_adapter.stack import KeptImages
from tessera.nodes.seamless import TesseraSeamlessModel


@pytest.fixture
def sd15(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


# Nothing leaks, nothing stacks


def test_applying_again_gives_the_same(sd15: ModelPatcher) -> None:
    loaded, plain = load_for(sd15), sample(sd15)
    models = [apply(sd15, loaded, prompts_of(0.3, 0.6)) for _ in range(3)]
    first = sample(models[0])
    for each in (*models, models[0].clone(), models[0].clone().clone()):
        assert torch.equal(sample(each), first)
    assert torch.equal(sample(sd15), plain)
    assert not sd15.wrappers
    assert not sd15.model_options["transformer_options"]


@pytest.mark.parametrize("combine", ["sum", "share", "concat"])
def test_two_nodes_in_a_row_equal_one_with_both_stacks(sd15: ModelPatcher, combine: str) -> None:
    loaded, a, b = load_for(sd15), prompts_of(0.1, 0.4), prompts_of(0.9, scale=0.3, kind="style")
    once = apply(sd15, loaded, [*a, *b], combine)
    half = apply(sd15, loaded, a, combine)
    before = sample(half)
    twice = apply(half, loaded, b, combine)
    assert torch.equal(sample(twice), sample(once))
    assert torch.equal(sample(half), before)


# Rows of a batch


@pytest.mark.parametrize("roles", [[1, 0], [0, 1], [0], [2, 1, 0], [0, 0, 1]])
def test_rows_see_what_their_conditioning_is(sd15: ModelPatcher, roles: list[int]) -> None:
    """Without a run around it: the second conditioning is the negative one, any other sees the images."""
    applied, single = apply(sd15, load_for(sd15), prompts_of(0.3)), inputs_of(sd15)
    rows = {key: value[:1].repeat(2 * len(roles), *[1] * (value.ndim - 1)) for key, value in single.items()}
    out = predict(applied, rows, roles)
    alone = {role: predict(applied, {k: v[:1] for k, v in single.items()}, [role]) for role in (0, 1)}
    assert distance(alone[0], alone[1]) > 1e-4
    expected = torch.cat([alone[int(role == 1)] for role in roles for _ in range(2)])
    assert within(distance(out, expected), 1e-5)


def test_conditionings_are_known_by_their_names() -> None:
    """PerpNeg's third and DualCFG's order: a guider's names decide, not the numbers."""
    names = {"a": "negative", "b": "middle", "c": "positive", "d": "empty_negative_prompt"}
    memory = RunMemory(KeptImages((), (), torch.float32), (16, 16), (), names)
    ids = [(2, "c"), (1, "b"), (0, "a"), (3, "d")]
    assert [memory.role(*each) for each in ids] == [0, 0, 1, 1]


def test_a_batch_equals_single_runs(sd15: ModelPatcher) -> None:
    applied = apply(sd15, load_for(sd15), prompts_of(0.3, 0.8))
    noise = torch.randn(3, *SHAPE[1:])
    together = sample(applied, noise)
    assert within(distance(together, torch.cat([sample(applied, each[None]) for each in noise])), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models(sd15_unet: Any, dtype: torch.dtype) -> None:
    unet: Any = UNet2DConditionModel.from_config(sd15_unet.config)
    unet.load_state_dict(sd15_unet.state_dict())
    model = ModelPatcher(SD15(unet.to(dtype)), "cpu", "cpu")
    full = ModelPatcher(SD15(sd15_unet), "cpu", "cpu")
    mask = torch.zeros(32, 48)
    mask[:, :24] = 1
    stack = [*prompts_of(0.3, mask=mask), *prompts_of(0.8)]
    ours, expected = (predict(apply(m, load_for(full), stack), inputs_of(full)) for m in (model, full))
    assert torch.isfinite(ours).all()
    assert distance(ours, expected) < 0.05


@pytest.mark.parametrize("size", [(15, 23), (9, 31), (16, 17)])
def test_odd_sizes_with_masks(sd15: ModelPatcher, size: tuple[int, int]) -> None:
    """The UNet rounds odd sizes up at each level; masks follow the grid that is there."""
    mask = torch.zeros(8 * size[0], 8 * size[1])
    mask[:, : 4 * size[1]] = 1
    noise = torch.randn(1, 4, *size)
    left = sample(apply(sd15, load_for(sd15), prompts_of(0.3, mask=mask)), noise)
    assert left.shape == noise.shape
    assert not torch.equal(left, sample(sd15, noise))


@pytest.mark.parametrize("uncut", [(129, 127), (135, 100), (128, 121)])
def test_the_mask_of_an_uncut_photo(sd15: ModelPatcher, uncut: tuple[int, int]) -> None:
    """The image acts as with a mask of what encoding leaves of the photo."""
    mask = torch.zeros(uncut)
    mask[20:70, :] = 1
    mask[:, 55:61] = 0
    height, width = (side // 8 for side in uncut)
    top, left = (side % 8 // 2 for side in uncut)
    cut = mask[top : top + 8 * height, left : left + 8 * width]
    noise = torch.randn(1, 4, height, width)
    drawn = [sample(apply(sd15, load_for(sd15), prompts_of(0.3, mask=each)), noise) for each in (mask, cut)]
    assert torch.equal(*drawn)
    shifted = mask.roll(1, 0)[top : top + 8 * height, left : left + 8 * width]
    assert not torch.equal(drawn[0], sample(apply(sd15, load_for(sd15), prompts_of(0.3, mask=shifted)), noise))


def test_together_with_a_seamless_model(sd15: ModelPatcher) -> None:
    """The image still rolls with its noise, whichever node comes first."""
    loaded, noise = load_for(sd15), torch.randn(SHAPE)
    first = apply(TesseraSeamlessModel.execute(sd15, "both", 0.0, 1.0, "auto").args[0], loaded, prompts_of(0.3))
    second = TesseraSeamlessModel.execute(apply(sd15, loaded, prompts_of(0.3)), "both", 0.0, 1.0, "auto").args[0]
    drawn = sample(first, noise)
    assert torch.equal(sample(second, noise), drawn)
    assert within(distance(sample(first, noise.roll((8, 8), (2, 3))), drawn.roll((8, 8), (2, 3))), 1e-5)
