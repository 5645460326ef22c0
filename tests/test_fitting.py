"""A GPU that runs out of memory in a step: what is said, and what stays; the GPU is counted here, not there."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tessera.host.errors import TooLargeError
from tessera.host.graph.failures import explain, input_is_at_fault, is_out_of_memory
from tessera.host.models.model_base import SD15
from tessera.host.runtime import fitting
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.ksampler import KSampler
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tessera.nodes.seamless import TesseraSeamlessModel
from tiny_adapters import Encoder, plain_image, random_adapter

GIB = 2**30
TEXT = [[torch.ones(1, 7, 16), {}]]


def _full(*_: Any) -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free.")


def _sample(model: Any, batch: int = 4) -> torch.Tensor:
    noise = torch.randn(batch, 4, 16, 24, generator=torch.Generator().manual_seed(1))
    run = KSampler(model, 2, "euler", "normal")
    return run.sample(noise, TEXT, TEXT, 2.0, torch.zeros_like(noise), seed=1, disable_pbar=True)


def test_a_run_that_is_too_large_says_what_fits_and_leaves_the_model(
    sd15_unet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 GiB were held before, 10 in the step that asked for 2 more, and there are 8: half of the run fits."""
    model = ModelPatcher(SD15(copy.deepcopy(sd15_unet)), "cpu", "cpu")
    plain = _sample(model)
    seamless = TesseraSeamlessModel.execute(model, "both", 0.0, 1.0, "circular").args[0]
    wrapped = seamless.clone()
    wrapped.set_model_unet_function_wrapper(_full)
    amounts = iter([4 * GIB, 10 * GIB])
    monkeypatch.setattr(fitting, "held", lambda _: next(amounts))
    monkeypatch.setattr(fitting, "available", lambda _: 8 * GIB)
    with pytest.raises(TooLargeError) as raised:
        _sample(wrapped)
    assert explain(raised.value) == (
        "out of memory: a batch of 4 at 192 x 128 is too large; a batch of 1, or 128 x 64, would fit, "
        "or take --dtype fp16"
    )
    assert is_out_of_memory(raised.value) and input_is_at_fault(raised.value)
    monkeypatch.undo()
    assert torch.equal(_sample(model), plain)


@pytest.mark.parametrize(("combine", "masked"), [("sum", False), ("sum", True), ("concat", False)])
def test_images_name_the_way_to_combine_that_takes_less(
    combine: str, masked: bool, sd15_unet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelPatcher(SD15(copy.deepcopy(sd15_unet)), "cpu", "cpu")
    loaded = LoadedAdapter(parse_adapter(random_adapter(sd15_unet), "base"), Encoder())
    mask = torch.ones(16, 24).tril() if masked else None
    prompts = tuple(ImagePrompt(plain_image(0.1 * i), 0.7, "full", mask=mask) for i in range(5))
    applied = TesseraApplyImagePrompts.execute(model, prompts, combine, loaded).args[0]
    applied.set_model_unet_function_wrapper(_full)
    monkeypatch.setattr(fitting, "available", lambda _: 8 * GIB)
    with pytest.raises(TooLargeError) as raised:
        _sample(applied)
    named = "concat" in explain(raised.value) and "5 images" in explain(raised.value)
    assert named == (combine == "sum" and not masked)
    assert "\n" not in explain(raised.value)


@given(st.integers(1, 16), st.integers(8, 256), st.integers(8, 256), st.floats(0, 1))
def test_what_is_said_to_fit_is_smaller_than_what_there_is(batch: int, height: int, width: int, share: float) -> None:
    said = fitting.smaller((batch, 4, height, width), 8, share)
    assert said.endswith(" would fit")
    fits = said.split("; ")[1].split(" would")[0].rstrip(",").split(", or ")
    for each in fits:
        if each.startswith("a batch of "):
            assert 0 < int(each.rpartition(" ")[2]) <= share * batch
        elif each != "nothing":
            sides = [int(side) for side in each.split(" x ")]
            assert all(side % fitting.MULTIPLE == 0 and side for side in sides)
            assert math.prod(sides) <= share * height * width * 64
    left = fitting.SAFE * share
    one_fits, sizes_fit = batch > 1 and batch * left >= 1, min(height, width) * 8 * math.sqrt(left) >= fitting.MULTIPLE
    assert ("nothing" in fits) == (not one_fits and not sizes_fit)
