"""How schedulers are stepped, from their first latents to their last. All but two have a `step` and share one way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .bridge import Bridge, Prediction
from .inject import Levels, ModelCall


@dataclass(frozen=True)
class SchedulerRun:
    """What a stepper works with.

    Attributes:
        scheduler: a fresh one, set to the levels.
        levels: noise levels of the run.
        bridge: conversions between the model's latents and the scheduler's.
        prediction: what the scheduler takes.
        calls: of the model, for schedulers with a `step`.
        options: further arguments of its `step`.
        generator: where it draws its noise.
        ends_at_x0: its formula has no value at zero, so the last step to zero takes the denoised latents.
    """

    scheduler: Any
    levels: Levels
    bridge: Bridge
    prediction: Prediction
    calls: Sequence[ModelCall]
    options: Mapping[str, Any]
    generator: torch.Generator
    ends_at_x0: bool


@dataclass
class Asked:
    """A call of the model that a stepper waits for.

    Attributes:
        step: the step that it belongs to, from 0.
        rho: noise level of the scheduler's latents.
        sample: the scheduler's latents (B, ...); whoever answers may replace them, as an inpainting pipeline does.
        x0: the answer, the denoised latents (B, ...).
    """

    step: int
    rho: float
    sample: Tensor
    x0: Tensor | None = None


Steps = Generator[Asked, None, Tensor]
"""A run as a generator: it yields calls of the model, finds x0 in them afterwards, and returns its last latents."""
Stepper = Callable[["SchedulerRun", Tensor], Steps]


def drive(steps: Steps, denoise: Callable[[Asked], Tensor]) -> Tensor:
    """Run a stepper to its end; `denoise` answers each call with x0 (B, ...)."""
    try:
        while True:
            asked = next(steps)
            asked.x0 = denoise(asked)
    except StopIteration as end:
        return end.value


def ask(step: int, rho: float, sample: Tensor) -> Generator[Asked, None, tuple[Tensor, Tensor]]:
    """Wait for the answer to a call of the model, and return its (sample, x0)."""
    asked = Asked(step, rho, sample)
    yield asked
    assert asked.x0 is not None
    return asked.sample, asked.x0


def step(run: SchedulerRun, sample: Tensor) -> Steps:
    """Every scheduler with a `step`."""
    for call in run.calls:
        sample, x0 = yield from ask(call.step, call.rho, sample)
        if run.ends_at_x0 and call is run.calls[-1] and not run.levels.ends_above_zero:
            return x0
        output = run.bridge.predict(run.prediction, sample, x0, call.rho)
        sample = run.scheduler.step(output, call.timestep, sample, return_dict=False, **run.options)[0]
    return sample


def karras_ve(run: SchedulerRun, sample: Tensor) -> Steps:
    """Stochastic Heun: noise is added before each step (Karras et al. 2022, arXiv:2206.00364, algorithm 2)."""
    scheduler, rho = run.scheduler, run.levels.rho.tolist()
    scheduler.num_inference_steps = run.levels.steps
    for i, (here, target) in enumerate(zip(rho[:-1], rho[1:], strict=True)):
        hat, level = scheduler.add_noise_to_input(sample, here, run.generator)
        hat, x0 = yield from ask(i, level, hat)
        out = scheduler.step((x0 - hat) / level, level, target, hat)
        sample = out.prev_sample
        if target > 0:
            sample, x0 = yield from ask(i, target, sample)
            correction = (x0 - sample) / target
            sample = scheduler.step_correct(correction, level, target, hat, sample, out.derivative).prev_sample
    return sample


def score_sde_ve(run: SchedulerRun, sample: Tensor) -> Steps:
    """Langevin corrections, then a reverse diffusion step (Song et al. 2021, arXiv:2011.13456, algorithms 2 and 4)."""
    scheduler, rho = run.scheduler, run.levels.rho
    scheduler.discrete_sigmas = (rho if run.levels.ends_above_zero else rho[:-1]).flip(0)
    entries = len(scheduler.discrete_sigmas)
    scheduler.timesteps = torch.zeros(entries)
    mean = sample
    for i, level in enumerate(rho[:-1].tolist()):
        for _ in range(scheduler.config.correct_steps):
            sample, x0 = yield from ask(i, level, sample)
            sample = scheduler.step_correct((x0 - sample) / level**2, sample, run.generator).prev_sample
        sample, x0 = yield from ask(i, level, sample)
        # The scheduler cuts time * (entries - 1) down to an index; the half keeps rounding away from the edge.
        time = (entries - 1 - i + 0.5) / max(entries - 1, 1)
        out = scheduler.step_pred((x0 - sample) / level**2, time, sample, run.generator)
        sample, mean = out.prev_sample, out.prev_sample_mean
    return sample if run.levels.ends_above_zero else mean
