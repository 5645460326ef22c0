"""The protocol of a host: names of wrappers, arguments by name, installing and removing, ranges, kinds of network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tessera.host.models.model_base import SD15
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.runtime.patcher_extension import WrappersMP
from tessera.patching.calls import Call, CondBatch, DenoiserCall, FluxCall, NoisePrediction, SamplingRun
from tessera.patching.latents import pixels_per_latent, with_planes
from tessera.patching.networks import Network
from tessera.patching.schedule import KnownLevels, ScheduleRange
from tessera.patching.wrappers import install, installed, remove
from torch import Tensor, nn


def test_kinds_of_calls_have_the_names_of_the_host() -> None:
    names = {
        SamplingRun: WrappersMP.OUTER_SAMPLE,
        CondBatch: WrappersMP.CALC_COND_BATCH,
        DenoiserCall: WrappersMP.APPLY_MODEL,
        NoisePrediction: WrappersMP.PREDICT_NOISE,
        FluxCall: WrappersMP.DIFFUSION_MODEL,
    }
    assert {call: call.kind for call in Call.__subclasses__()} == names


@pytest.mark.parametrize("kind", Call.__subclasses__())
@pytest.mark.parametrize("count", [0, 2, 6])
def test_a_call_goes_on_as_it_came(kind: type[Call], count: int) -> None:
    """Whatever part of the arguments a host gives by position."""
    names = [*kind.positional, "more"]
    values = {name: object() for name in names}
    seen: list[Any] = []

    def executor(*positional: Any, **named: Any) -> None:
        seen.append({**dict(zip(names, positional, strict=False)), **named})

    positional = [values[name] for name in names[:count]]
    call = kind.read(executor, positional, {name: values[name] for name in names[count:]})
    call.proceed()
    changed = object()
    call.proceed(**{names[0]: changed})
    assert seen == [values, values | {names[0]: changed}]


def test_an_argument_that_was_left_out_stays_out() -> None:
    def executor(x: int, timestep: int, model_options: str = "default", seed: int | None = None) -> tuple[Any, ...]:
        return x, timestep, model_options, seed

    assert NoisePrediction.read(executor, (1, 2), {"seed": 5}).proceed() == (1, 2, "default", 5)


@pytest.fixture
def model() -> ModelPatcher:
    return ModelPatcher(SD15(nn.Linear(1, 1)), "cpu", "cpu")


def test_hooks_replace_those_of_the_same_key_and_are_taken_out_again(model: ModelPatcher) -> None:
    def hook(call: SamplingRun) -> Any:
        return call.proceed()

    first = install(model, "key", "first", {SamplingRun: hook, DenoiserCall: hook})
    other = install(first, "other", "other", {DenoiserCall: hook})
    second = install(other, "key", "second", {DenoiserCall: hook})
    assert [installed(each, "key") for each in (model, first, other, second)] == [None, "first", "first", "second"]
    assert installed(second, "other") == "other"
    assert not second.get_wrappers(SamplingRun.kind, "key") and len(second.get_wrappers(DenoiserCall.kind, "key")) == 1
    bare = remove(second, "key")
    assert installed(bare, "key") is None and installed(bare, "other") == "other"
    assert remove(model, "key") is model and installed(second, "key") == "second"


@given(start=st.floats(0, 1), end=st.floats(0, 1), at=st.floats(0, 1))
def test_a_range_covers_what_lies_between_its_ends(start: float, end: float, at: float) -> None:
    def percent_to_sigma(percent: float) -> float:
        return 2.0 - percent

    covered = ScheduleRange(start, end).covers(percent_to_sigma(at), percent_to_sigma)
    assert covered == (
        percent_to_sigma(end) <= percent_to_sigma(at) <= percent_to_sigma(start) or (start, end) == (0, 1)
    )


def test_the_whole_schedule_is_covered_without_a_look_at_sigma() -> None:
    def never(percent: float) -> float:
        raise AssertionError(percent)

    assert ScheduleRange().covers(torch.empty(1, device="meta"), never)


def test_a_network_that_says_nothing_has_no_token_size() -> None:
    network = Network(nn.Linear(1, 1), 4)
    assert network.token_size is None and network.unet is None and network.flux is None and not network.is_flux


def test_parts_of_flux_are_counted(flux_transformer: Any) -> None:
    network = Network(flux_transformer, 16)
    assert network.is_flux and network.flux_blocks == 4 and network.text_width == 16 and network.token_size == 2


@pytest.mark.parametrize(
    ("latent", "pixels"),
    [
        ({"samples": torch.zeros(1, 4, 8, 8)}, 8),
        ({"samples": torch.zeros(1, 128, 8, 8)}, 16),
        ({"samples": torch.zeros(1, 4, 8, 8), "downscale_ratio_spacial": 16}, 16),
        ({"samples": torch.zeros(1, 16, 1, 8, 8)}, 8),
    ],
)
def test_pixels_of_a_latent(latent: dict[str, Any], pixels: int) -> None:
    assert pixels_per_latent(latent) == pixels


def test_a_latent_without_a_mask_has_none_afterwards() -> None:
    found = with_planes({"samples": torch.ones(1, 4, 8, 8), "noise_mask": None, "batch_index": [3]}, torch.zeros_like)
    assert not found["samples"].any()
    assert (found["noise_mask"], found["batch_index"]) == (None, [3])


def test_a_noise_level_is_read_once_for_all_hooks_of_a_prediction() -> None:
    """Each read is a wait for a GPU; calls get copies of the options, but the same record of levels."""
    reads = []

    class Sigma:
        def max(self) -> float:
            reads.append(self)
            return 0.5

    def bound(percent: float) -> float:
        reads.append(percent)
        return 1 - percent

    levels, half = KnownLevels(), ScheduleRange(0.25, 0.75)
    call: Any = SimpleNamespace(levels=levels, percent_to_sigma=bound)
    half.prepare(call, "A patch", "nothing happens")
    assert reads == [0.25, 0.75]
    for sigma in cast("list[Tensor]", [Sigma(), Sigma()]):
        for _ in range(3):
            call.level = levels.highest(sigma)
            assert half.acts(call)
            assert not ScheduleRange(0.75, 1.0).acts(call)
            assert ScheduleRange().acts(call)
    # The bound 0.75 was known, 1.0 is asked for once.
    assert [type(each) for each in reads] == [float, float, Sigma, float, Sigma]


@pytest.mark.parametrize(
    ("start", "end", "acts"),
    [(0.5, 0.5, True), (0.3, 0.3, False), (0.6, 0.9, True), (0.8, 0.9, False), (0.9, 1.0, False)],
)
def test_a_range_without_a_step_is_said_in_the_log(
    start: float, end: float, acts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of a run is no step: nothing is predicted there."""
    levels = KnownLevels(schedule=(1.0, 0.75, 0.5, 0.25, 0.0))
    run: Any = SimpleNamespace(levels=levels, percent_to_sigma=lambda percent: 1 - percent)
    with caplog.at_level("WARNING"):
        ScheduleRange(start, end).prepare(run, "A patch", "nothing happens")
    assert ("A patch: no step" in caplog.text and "so nothing happens" in caplog.text) != acts
