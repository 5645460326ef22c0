"""How schedulers are stepped, from their first latents to their last. All but two have a `step` and share one way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .bridge import Bridge, Prediction
from .inject import Call, Levels


@dataclass(frozen=True)
class Run:
    """What a stepper works with.

    Args:
        scheduler: a fresh one, set to the levels.
        calls: of the model, for schedulers with a `step`.
        options: further arguments of its `step`.
        generator: where it draws its noise.
        ends_at_x0: its formula has no value at zero, so the last step to zero takes the denoised latents.
    """

    scheduler: Any
    levels: Levels
    bridge: Bridge
    prediction: Prediction
    calls: Sequence[Call]
    options: Mapping[str, Any]
    generator: torch.Generator
    ends_at_x0: bool


# `f(step, rho, sample) -> x0`: asks the model about the scheduler's latents at a noise level.
Denoise = Callable[[int, float, Tensor], Tensor]
Stepper = Callable[[Run, Tensor, Denoise], Tensor]


def step(run: Run, sample: Tensor, denoise: Denoise) -> Tensor:
    """Every scheduler with a `step`."""
    for call in run.calls:
        x0 = denoise(call.step, call.rho, sample)
        if run.ends_at_x0 and call is run.calls[-1] and not run.levels.open:
            return x0
        output = run.bridge.predict(run.prediction, sample, x0, call.rho)
        sample = run.scheduler.step(output, call.timestep, sample, return_dict=False, **run.options)[0]
    return sample


def karras_ve(run: Run, sample: Tensor, denoise: Denoise) -> Tensor:
    """Stochastic Heun: noise is added before each step (Karras et al. 2022, arXiv:2206.00364, algorithm 2)."""
    scheduler, rho = run.scheduler, run.levels.rho.tolist()
    scheduler.num_inference_steps = run.levels.steps
    for i, (here, target) in enumerate(zip(rho[:-1], rho[1:], strict=True)):
        hat, level = scheduler.add_noise_to_input(sample, here, run.generator)
        x0 = denoise(i, level, hat)
        out = scheduler.step((x0 - hat) / level, level, target, hat)
        sample = out.prev_sample
        if target > 0:
            x0 = denoise(i, target, sample)
            correction = (x0 - sample) / target
            sample = scheduler.step_correct(correction, level, target, hat, sample, out.derivative).prev_sample
    return sample


def score_sde_ve(run: Run, sample: Tensor, denoise: Denoise) -> Tensor:
    """Langevin corrections, then a reverse diffusion step (Song et al. 2021, arXiv:2011.13456, algorithms 2 and 4)."""
    scheduler, rho = run.scheduler, run.levels.rho
    scheduler.discrete_sigmas = (rho if run.levels.open else rho[:-1]).flip(0)
    entries = len(scheduler.discrete_sigmas)
    scheduler.timesteps = torch.zeros(entries)
    mean = sample
    for i, level in enumerate(rho[:-1].tolist()):
        for _ in range(scheduler.config.correct_steps):
            x0 = denoise(i, level, sample)
            sample = scheduler.step_correct((x0 - sample) / level**2, sample, run.generator).prev_sample
        x0 = denoise(i, level, sample)
        # The scheduler cuts time * (entries - 1) down to an index; the half keeps rounding away from the edge.
        time = (entries - 1 - i + 0.5) / max(entries - 1, 1)
        out = scheduler.step_pred((x0 - sample) / level**2, time, sample, run.generator)
        sample, mean = out.prev_sample, out.prev_sample_mean
    return sample if run.levels.open else mean
