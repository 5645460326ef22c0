"""A diffusers scheduler as a sampler function in the form of k-diffusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ..patching.model_sampling import NoiseSchedule, fractional_timesteps, noise_schedule
from .bridge import Bridge
from .build import make, only_known
from .inject import Levels
from .registry import SchedulerEntry
from .spacing import merged
from .steppers import Asked, SchedulerRun, drive

MAX_SEED = 2**64
NoiseMode = Literal["portable", "diffusers"]


@dataclass(frozen=True)
class Choice:
    """A chosen scheduler with its options.

    Attributes:
        options: arguments of the scheduler's constructor or step, by diffusers' names.
        noise: "portable" draws the noise of the steps from the next seed; "diffusers" draws what a pipeline would,
            whose generator has made the initial latents before.
    """

    entry: SchedulerEntry
    options: Mapping[str, Any] = field(default_factory=dict)
    noise: NoiseMode = "portable"

    def bridge(self, schedule: NoiseSchedule) -> Bridge:
        """Return the conversions between the scheduler's latents and those of a model."""
        return Bridge(self.entry.space, schedule.flow)


def sample(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
    *,
    choice: Choice,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Sample with a diffusers scheduler; called as k-diffusion's functions are.

    Args:
        model: `f(x, sigma, **extra_args) -> x0`, as KSAMPLER hands it over, with x (B, ...) and sigma (B,).
        x: noised latents at the first sigma (B, ...).
        sigmas: noise levels (steps + 1,), falling; rising for an inversion.
        extra_args: `seed` of the scheduler's noise, and more for the model.
        callback: called once a step with `x`, `i`, `sigma`, `sigma_hat` and `denoised`.
        disable: of a progress bar that k-diffusion's functions print; this one prints none.
        choice: the scheduler with its options.
        check: called before each call of the model, to interrupt.

    Returns:
        Latents (B, ...) at the last sigma.

    Raises:
        ValueError: the sigmas do not suit the scheduler.
        RuntimeError: the model gave a value that is not finite.
    """
    extra_args = extra_args or {}
    check_sigmas(choice.entry, sigmas)
    model_sampling = model.inner_model.inner_model.model_sampling
    schedule = noise_schedule(model_sampling)
    if schedule.flow and not choice.entry.rising:
        sigmas = merged(choice.entry, sigmas)
        if len(sigmas) < 2:
            # All levels are one to the scheduler: there is no step to make.
            return x
    generator = make_generator(choice.noise, extra_args.get("seed") or 0, x.shape)
    run = make_run(choice, schedule, sigmas, generator, x.device)
    finite = FiniteCheck(choice.entry, run.levels.steps)
    denoise = denoiser(run, sigmas, partial(model, **extra_args), x.dtype, finite, callback, check)
    with torch.no_grad(), fractional_timesteps(model_sampling) if choice.entry.fractional else nullcontext():
        sampled = drive(choice.entry.stepper(run, start(run, x, model.noise, model.latent_image)), denoise)
    finite.finish()
    return scaled(sampled, 1 / run.bridge.scale(float(run.levels.rho[-1])), x.dtype)


class FiniteCheck:
    """Checks that a model gives finite values: on a CPU at once, elsewhere at the end, as each look would be a wait.

    Args:
        entry: the scheduler.
        steps: of the run.
    """

    def __init__(self, entry: SchedulerEntry, steps: int) -> None:
        self.entry, self.steps = entry, steps
        self._open: list[tuple[Tensor, int, float]] = []

    def add(self, x0: Tensor, step: int, sigma: float) -> None:
        """Check denoised latents of a step.

        Raises:
            RuntimeError: they are not finite.
        """
        # In half precision, the sum of finite values may be infinite.
        self._open.append((x0.sum(dtype=torch.promote_types(x0.dtype, torch.float32)), step, sigma))
        if x0.device.type == "cpu":
            self.finish()

    def finish(self) -> None:
        """Check what has not been looked at.

        Raises:
            RuntimeError: a step gave a value that is not finite.
        """
        waiting, self._open = self._open, []
        for total, step, sigma in waiting:
            if not math.isfinite(total.item()):
                raise RuntimeError(
                    f"The model gave a value that is not finite at step {step + 1} of {self.steps} (sigma "
                    f"{sigma:.4g}, {self.entry.name}); run it in float32 or bfloat16, or check the model and its "
                    "patches."
                )


def denoiser(
    run: SchedulerRun,
    sigmas: Tensor,
    model: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype,
    finite: FiniteCheck,
    callback: Callable[[dict[str, Any]], None] | None,
    check: Callable[[], None],
) -> Callable[[Asked], Tensor]:
    """Return what answers a stepper: the model, given its own latents; each step is reported once.

    Args:
        run: converts between the scheduler's latents and the model's.
        sigmas: noise levels (steps + 1,).
        model: `f(x, sigma) -> x0`, with x (B, ...) of `dtype` and sigma (B,).
        dtype: of the model's latents.
        finite: checks what the model gives.
        callback: as in `sample`.
        check: as in `sample`.
    """
    reported = -1

    def denoise(asked: Asked) -> Tensor:
        nonlocal reported
        check()
        sigma = run.bridge.sigma(asked.rho)
        latents = scaled(asked.sample, 1 / run.bridge.scale(asked.rho), dtype)
        x0 = model(latents, latents.new_full(latents.shape[:1], sigma))
        finite.add(x0, asked.step, sigma)
        if asked.step > reported and callback is not None:
            callback({"x": latents, "i": asked.step, "sigma": sigmas[asked.step], "sigma_hat": sigma, "denoised": x0})
        reported = asked.step
        return x0

    return denoise


def working_type(entry: SchedulerEntry, bridge: Bridge, device: torch.device) -> torch.dtype:
    """float32; float64 where the scheduler subtracts large numbers from each other and the device has it."""
    return torch.float64 if entry.cancels and bridge.crosses and device.type != "mps" else torch.float32


def make_run(
    choice: Choice, schedule: NoiseSchedule, sigmas: Tensor, generator: torch.Generator, device: torch.device
) -> SchedulerRun:
    """Make a fresh scheduler with the noise levels of the run."""
    entry = choice.entry
    bridge = choice.bridge(schedule)
    dtype = working_type(entry, bridge, device)
    rho, table = (bridge.rho(s.to("cpu", dtype), entry.highest) for s in (sigmas, schedule.sigmas))
    levels = Levels(rho, schedule.timestep(sigmas[:-1]).float().tolist(), table)
    own = "v_prediction" if schedule.prediction == "v_prediction" else "epsilon"
    prediction = own if entry.prediction == "model" else entry.prediction
    seed = {"noise_sampler_seed": generator.initial_seed()}
    arguments = {
        **constructor_arguments(levels),
        **seed,
        **entry.config,
        **choice.options,
        "prediction_type": prediction,
    }
    scheduler = make(entry.name, arguments)
    calls = entry.inject(scheduler, levels)
    options = (
        only_known(scheduler.step, {"generator": generator, **choice.options}) if hasattr(scheduler, "step") else {}
    )
    return SchedulerRun(scheduler, levels, bridge, prediction, calls, options, generator, entry.ends_at_x0)


def constructor_arguments(levels: Levels) -> dict[str, Any]:
    """Return arguments that depend on the run; each constructor takes those it knows."""
    return {
        "num_train_timesteps": levels.steps + levels.ends_above_zero,
        # Made for pixels; it would clip colours of latents.
        "clip_sample": False,
        "final_sigmas_type": "sigma_min" if levels.ends_above_zero else "zero",
        "sigma_max": float(levels.rho.max()),
        # Added noise must not lead above what the model was trained on; at most the root of two is added.
        "s_max": min(50.0, float(levels.table[-1]) / math.sqrt(2)),
    }


def start(run: SchedulerRun, x: Tensor, noise: Tensor | None, image: Tensor | None) -> Tensor:
    """Return the scheduler's first latents.

    From an empty latent a pipeline starts with noise in the scheduler's own strength, which is up to a percent off
    ComfyUI's; with an image, ComfyUI's mixture is kept.

    Args:
        run: the run.
        x: the model's noised latents (B, ...).
        noise: (B, ...) of unit variance.
        image: the latents that were noised.
    """
    strength = getattr(run.scheduler, "init_noise_sigma", None)
    if strength is None or noise is None or image is None or run.bridge.flow or image.count_nonzero() > 0:
        return scaled(x, run.bridge.scale(float(run.levels.rho[0])), run.levels.rho.dtype)
    return scaled(noise, float(strength), run.levels.rho.dtype)


def make_generator(mode: NoiseMode, seed: int, shape: torch.Size) -> torch.Generator:
    """Return the generator of the steps' noise, on the CPU, so that all devices get the same."""
    if mode == "portable":
        return torch.Generator().manual_seed((seed + 1) % MAX_SEED)
    generator = torch.Generator().manual_seed(seed)
    torch.randn(shape, generator=generator)
    return generator


def check_sigmas(entry: SchedulerEntry, sigmas: Tensor) -> None:
    """Check that the scheduler can run these noise levels.

    Raises:
        ValueError: too few, not finite, or not in order.
    """
    if len(sigmas) < 2:
        raise ValueError(f"sigmas holds {len(sigmas)} noise levels, expected at least 2; take more steps.")
    if not sigmas.isfinite().all() or sigmas.min() < 0:
        raise ValueError(
            f"sigmas are {_listed(sigmas)}, expected finite numbers of at least 0; check where they come from."
        )
    falls = sigmas.diff() < 0
    if entry.rising and falls.any():
        raise ValueError(
            f"{entry.name} goes from an image to noise and needs rising sigmas, found {_listed(sigmas)}; take "
            "them from the Scheduler node, or flip them."
        )
    if not entry.rising and not falls.all():
        raise ValueError(
            f"{entry.name} needs falling sigmas without repetition, found {_listed(sigmas)}; for rising ones take "
            "DDIMInverseScheduler."
        )


def _listed(sigmas: Tensor) -> str:
    numbers = [f"{sigma:.4g}" for sigma in sigmas.tolist()]
    return ", ".join(numbers if len(numbers) < 9 else [*numbers[:4], "...", *numbers[-3:]])


def scaled(x: Tensor, factor: float, dtype: torch.dtype) -> Tensor:
    """Return `x` times `factor`, in `dtype`; `x` itself where nothing changes."""
    x = x if x.dtype == dtype else x.to(dtype)
    return x if factor == 1 else x * factor
