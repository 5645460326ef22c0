"""Noise levels of every scheduler at every number of steps and every strength, up to as many as a model knows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_models import SHAPE, Model, levels, model_sampling, noise, resume
from tessera.samplers import build, registry, report, sampler, spacing

TABLE = 1000
MODELS = {kind: model_sampling(kind) for kind in ("epsilon", "v_prediction", "flow")}
STEPS = st.one_of(st.integers(1, TABLE), st.sampled_from([1, 2, 50, 100, 500, 999, TABLE]))
DENOISE = st.one_of(st.floats(1e-6, 1), st.sampled_from([0.001, 0.01, 0.1, 0.3, 0.5, 0.999, 1.0]))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    entry=st.sampled_from(registry.ENTRIES),
    kind=st.sampled_from(list(MODELS)),
    spaced=st.sampled_from(spacing.SPACINGS),
    final=st.sampled_from(spacing.FINALS),
    steps=STEPS,
    denoise=DENOISE,
)
def test_any_schedule_can_be_run(
    entry: registry.SchedulerEntry, kind: str, spaced: str, final: str, steps: int, denoise: float
) -> None:
    if spaced == "flow" and kind != "flow":
        spaced = "auto"
    space = MODELS[kind]
    found = spacing.sigmas(entry, space, steps, denoise, spaced, final)
    sampler.check_sigmas(entry, found)
    assert 1 <= len(found) - 1 <= steps
    assert found.max() <= space.sigmas[-1] * (1 + 1e-5)
    assert str(len(found) - 1) in report.describe(entry, found, spaced, steps, kind == "flow")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    entry=st.sampled_from(registry.ENTRIES),
    # Leading ones, in diffusers, end below the top by what is left when the table is divided.
    spaced=st.sampled_from(["trailing", "linspace"]),
    steps=STEPS,
    denoise=DENOISE,
)
def test_a_run_begins_at_the_noise_that_is_asked_for(
    entry: registry.SchedulerEntry, spaced: str, steps: int, denoise: float
) -> None:
    """However few levels there are: within one of the schedule's own, and one of the model's at both ends."""
    space = MODELS["epsilon"]
    start = space.timestep(spacing.sigmas(entry, space, steps, denoise, spaced).max()).item()
    total = min(steps / denoise, TABLE)
    assert abs(start - denoise * TABLE) <= TABLE / total * (1 + denoise) + 2


@pytest.mark.parametrize("entry", registry.ENTRIES, ids=lambda entry: entry.short)
@pytest.mark.parametrize(("steps", "denoise"), [(100, 0.1), (40, 0.02), (1, 0.0001)])
def test_as_many_levels_as_the_model_knows(entry: registry.SchedulerEntry, steps: int, denoise: float) -> None:
    model = Model("epsilon")
    sigmas = levels(entry.name, model, steps, denoise=denoise)
    start = 0.5 * noise()
    if not entry.rising:
        start = model.model_sampling.noise_scaling(sigmas[0], noise(), start, False)
    assert resume(entry.name, model, start, sigmas).isfinite().all()
    assert len(model.calls) == report.model_calls(entry, sigmas)


@pytest.mark.parametrize("entry", registry.ENTRIES, ids=lambda entry: entry.short)
def test_levels_near_a_flows_first_are_one_step(entry: registry.SchedulerEntry) -> None:
    """Where a scheduler divides by what is left of the signal, the first levels of many steps are one level."""
    model = Model("flow")
    given = model.model_sampling.sigmas.flip(0)[:12]
    if entry.rising:
        given = given.flip(0).clamp(max=entry.highest).unique()
    assert resume(entry.name, model, torch.ones(SHAPE), given).isfinite().all()


@pytest.mark.parametrize("kind", spacing.SIGMAS)
@pytest.mark.parametrize("steps", [2, 7, 50])
def test_levels_are_spread_as_diffusers_spreads_them(kind: str, steps: int) -> None:
    scheduler = build.make("FlowMatchEulerDiscreteScheduler", {f"use_{kind}_sigmas": True})
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0.02, steps, dtype=torch.float64).numpy())
    ours = spacing.spread(kind, 1.0, 0.02, steps)
    torch.testing.assert_close(ours.float(), scheduler.sigmas[:-1].float(), rtol=1e-5, atol=1e-6)
