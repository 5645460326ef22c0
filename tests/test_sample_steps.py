"""Sample and Keep Steps: SamplerCustomAdvanced's result to the bit, and what the model saw at each step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tessera.host import progress
from tessera.host.models.model_base import SD15
from tessera.host.nodes.custom_sampling import BasicGuider, CFGGuider, SamplerCustomAdvanced, SeededNoise
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.runtime.patcher_extension import WrappersMP
from tessera.host.sampling.samplers import SAMPLER_NAMES, sampler_object
from tessera.host.sampling.schedules import calculate_sigmas
from tessera.nodes.scheduler import choose
from tessera.nodes.steps import TesseraSampleSteps, _look
from tessera.patching.vaes import decoded
from tessera.samplers.steps import StepKeeper
from torch import Tensor

# numpy's about diffusers, and torchsde's about rounding.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Should have")
STEPS = 4


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 3))
def test_every_nth_and_the_last_are_kept(total: int, every: int, batch: int) -> None:
    keeper = StepKeeper(every)
    for step in range(total):
        keeper(step, torch.full((batch, 1, 1, 1), float(step + 1)))
    kept = keeper.batch()
    assert kept is not None
    expected = sorted({*range(every, total + 1, every), total})
    assert kept.flatten().tolist() == [number for number in expected for _ in range(batch)]


def test_kept_steps_are_copies_and_a_step_counts_once() -> None:
    keeper, x0 = StepKeeper(), torch.ones(1, 1)
    assert keeper.batch() is None
    for step, value in ((0, 5.0), (0, 6.0), (1, 7.0), (2, 8.0), (2, 9.0)):
        keeper(step, x0.fill_(value))
    kept = keeper.batch()
    assert kept is not None
    assert kept.flatten().tolist() == [6.0, 7.0, 9.0]


# Runs


@pytest.fixture(scope="module")
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


def text(value: float) -> list[list[Any]]:
    return [[torch.linspace(-value, value, 7 * 16).view(1, 7, 16), {}]]


def guider(model: ModelPatcher) -> Any:
    return CFGGuider.execute(model, text(1.0), text(-1.0), 2.0).args[0]


def sigmas(model: ModelPatcher) -> Tensor:
    return calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)


def image(batch: int = 2) -> dict[str, Any]:
    """Latents with a mask of the right half."""
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1.0
    samples = torch.sin(torch.arange(batch * 256.0)).reshape(batch, 4, 8, 8)
    return {"samples": samples, "noise_mask": mask, "batch_index": list(range(3, 3 + batch))}


def empty(batch: int = 1) -> dict[str, Any]:
    return {"samples": torch.zeros(batch, 4, 8, 8), "downscale_ratio_spacial": 8}


def check(model: ModelPatcher, sampler: Any, levels: Tensor, latent: dict[str, Any]) -> Tensor:
    """Both nodes give the same two latents; the steps."""
    parts = (SeededNoise(3), guider(model), sampler, levels, latent)
    expected = SamplerCustomAdvanced.execute(*parts).args
    *found, steps = TesseraSampleSteps.execute(*parts, 1).args
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert torch.equal(ours["samples"], theirs["samples"])
    batch = latent["samples"].shape[0]
    assert torch.equal(steps["samples"][-batch:], found[1]["samples"])
    assert not {"noise_mask", "batch_index", "downscale_ratio_spacial"} & steps.keys()
    return steps["samples"]


@pytest.mark.parametrize("name", [name for name in SAMPLER_NAMES if not name.endswith("_gpu")])
def test_every_sampler_draws_what_it_draws_without(name: str, model: ModelPatcher) -> None:
    assert len(check(model, sampler_object(name), sigmas(model), image())) >= 2


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", "HeunDiscreteScheduler", "DEISMultistepScheduler"])
def test_every_scheduler_draws_what_it_draws_without(name: str, model: ModelPatcher) -> None:
    sampler, levels, _ = choose(model, name, STEPS, 1.0, "auto", "zero", "portable", {})
    assert len(check(model, sampler, levels, empty(2))) == 2 * STEPS


def test_a_step_is_what_a_run_predicts_that_ends_there(model: ModelPatcher) -> None:
    levels, sampler = sigmas(model), sampler_object("euler")
    steps = check(model, sampler, levels, image()).split(2)
    assert len(steps) == STEPS
    for number, step in enumerate(steps, 1):
        ended = SamplerCustomAdvanced.execute(SeededNoise(3), guider(model), sampler, levels[: number + 1], image())
        assert torch.equal(step, ended.args[1]["samples"])
    assert not torch.equal(steps[0], steps[1])


def test_a_run_that_ends_in_noise_gives_predictions_without(model: ModelPatcher) -> None:
    levels = sigmas(model)[:-1]
    output, denoised, steps = TesseraSampleSteps.execute(
        SeededNoise(3), guider(model), sampler_object("euler"), levels, empty(), 2
    ).args
    assert len(steps["samples"]) == 2
    assert torch.equal(steps["samples"][-1:], denoised["samples"])
    assert not torch.equal(output["samples"], denoised["samples"])


def test_no_steps_give_the_latents(model: ModelPatcher) -> None:
    assert torch.equal(check(model, sampler_object("euler"), torch.empty(0), image()), image()["samples"])


def test_progress_and_other_guiders_and_wrappers_see_the_run_as_it_is(model: ModelPatcher) -> None:
    seen: list[Any] = []
    patched = model.clone()

    def outer(executor: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(type(executor.class_obj).__name__)
        return executor(*arguments, **options)

    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "test", outer)
    own = BasicGuider.execute(patched, text(1.0)).args[0]
    progress.set_progress_bar_global_hook(lambda value, total, preview: seen.append((value, total)))
    try:
        TesseraSampleSteps.execute(SeededNoise(3), own, sampler_object("euler"), sigmas(model), empty(), 2)
    finally:
        progress.set_progress_bar_global_hook(None)
    assert seen == [type(own).__name__, *((step, STEPS) for step in range(1, STEPS + 1))]


def test_an_interrupted_run_ends_and_leaves_nothing(model: ModelPatcher) -> None:
    progress.set_progress_bar_global_hook(lambda value, total, preview: progress.interrupt_current_processing())
    parts = (SeededNoise(3), guider(model), sampler_object("euler"), sigmas(model), empty())
    try:
        with pytest.raises(progress.InterruptProcessingException):
            TesseraSampleSteps.execute(*parts, 1)
    finally:
        progress.set_progress_bar_global_hook(None)
        progress.interrupt_current_processing(False)
    assert len(check(model, *parts[2:])) == STEPS


def test_latents_of_several_parts_are_refused(model: ModelPatcher) -> None:
    nested = {"samples": SimpleNamespace(is_nested=True)}
    with pytest.raises(ValueError, match="SamplerCustomAdvanced"):
        TesseraSampleSteps.execute(SeededNoise(3), guider(model), sampler_object("euler"), sigmas(model), nested, 1)


def test_images_of_single_frames_are_shown_with_their_steps() -> None:
    frames = SimpleNamespace(decode=lambda _: torch.rand(2, 3, 8, 8, 3))
    look = _look(decoded(frames, torch.empty(0)), ["step 1", "step 2"])
    assert look["names"] == ("step 1",) * 3 + ("step 2",) * 3
    assert len(look["sheet"]) == 6
