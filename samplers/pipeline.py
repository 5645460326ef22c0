"""The 25 schedulers without a host: inside a diffusers pipeline, or around a plain denoiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..patching.model_sampling import NoiseSchedule, interpolated_timestep
from . import steppers
from .build import make
from .plan import plan
from .registry import find
from .sampler import Choice, FiniteCheck, check_sigmas, denoiser, make_generator, make_run, scaled, start
from .spacing import merged
from .steppers import Asked, SchedulerRun, Steps, drive

LEAST_SIGNAL = 4.9e-8
"""Least alphas_cumprod: schedules rescaled to zero terminal SNR have none left, which is an infinite sigma."""

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""diffusers' configuration of the noise levels of Stable Diffusion 1.5, 2 and SDXL."""


def noise_schedule_of(scheduler: Any, mu: float | None = None, fractional: bool = True) -> NoiseSchedule:
    """Return the noise levels that the configuration of a diffusers scheduler describes.

    Args:
        scheduler: of a pipeline; it is not changed.
        mu: of the image's size, see `shift_of`.
        fractional: whether timesteps between the trained ones are given, or the nearest of these.

    Raises:
        ValueError: the network predicts something else than noise, velocity or a flow.
    """
    config = dict(scheduler.config)
    if "FlowMatch" in type(scheduler).__name__ or config.get("prediction_type") == "flow_prediction":
        count = config["num_train_timesteps"]
        even = torch.arange(1, count + 1) / count
        return NoiseSchedule(shifted(even, shift_of(config, mu)), "flow", lambda sigmas: sigmas * 1000)
    kept = make("DDPMScheduler", config).alphas_cumprod.clamp(min=LEAST_SIGNAL)
    sigmas = ((1 - kept) / kept).sqrt()
    timestep = partial(interpolated_timestep, sigmas.log())
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ValueError(f"The model predicts {prediction!r}, expected epsilon, v_prediction or a flow.")
    return NoiseSchedule(sigmas, prediction, timestep if fractional else lambda levels: timestep(levels).round())


def shift_of(config: Mapping[str, Any], mu: float | None = None) -> float:
    """Return the shift of a flow, as diffusers' schedulers take it from their configuration.

    Args:
        config: of the scheduler.
        mu: what a pipeline computes from the size of the image. It counts where the shift is dynamic alone, as in
            Flux.1 dev and Qwen-Image: pipelines hand it to Flux.1 schnell and Z-Image as well, whose shift is fixed.

    Examples:
        >>> from tessera.samplers.pipeline import shift_of
        >>> shift_of({"shift": 3.0}, mu=1.15)
        3.0
    """
    if mu is None or not config.get("use_dynamic_shifting"):
        return config.get("shift", config.get("flow_shift", 1.0))
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)


def shifted(sigmas: Tensor, shift: float) -> Tensor:
    """Shift a flow's sigmas (N,), 0..1, towards 1 (Esser et al. 2024, arXiv:2403.03206)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def as_drawn(sigmas: Tensor, config: Mapping[str, Any], mu: float | None) -> Tensor:
    """Return the noise levels that diffusers makes of a pipeline's (steps,): shifted, and stretched to the lowest.

    Args:
        sigmas: of a flow, falling.
        config: of the pipeline's scheduler; in `shift_terminal` is the lowest level, where it has one.
        mu: see `shift_of`.
    """
    sigmas, lowest = shifted(sigmas, shift_of(config, mu)), config.get("shift_terminal")
    if not lowest or sigmas[-1] == 1:
        return sigmas
    return 1 - (1 - sigmas) * (1 - lowest) / (1 - sigmas[-1])


def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    scheduler: str = "DPMSolverMultistepScheduler",
    steps: int = 20,
    *,
    schedule: NoiseSchedule | None = None,
    spacing: str = "auto",
    final: str = "zero",
    seed: int = 0,
    callback: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> Tensor:
    """Draw samples with a diffusers scheduler and a plain denoiser.

    Args:
        denoise: `f(x, sigma) -> x0`, with x (B, ...) = x0 + sigma * noise, or (1 - sigma) * x0 + sigma * noise where
            `schedule` is a flow, and sigma (B,).
        noise: (B, ...) of unit variance.
        scheduler: one of `NAMES`, with or without "Scheduler"; not one that inverts.
        steps: 1..1000.
        schedule: noise levels of the model (`noise_schedule_of`); Stable Diffusion's by default.
        spacing: "auto", "leading", "trailing", "linspace", "karras", "exponential", "beta" or, for flows, "flow".
        final: "zero", or "sigma_min" for the lowest trained level.
        seed: random seed of the noise that stochastic schedulers add.
        callback: called once a step with `x`, `i`, `sigma`, `sigma_hat` and `denoised`.
        options: arguments of the scheduler, such as `solver_order` or `eta`.

    Returns:
        (B, ...) samples, in the type of `noise`.

    Raises:
        ValueError: the scheduler is unknown or inverts, an option does not apply to it, or a number is out of range.
        RuntimeError: diffusers is missing or too old, or the model gave a value that is not finite.

    Examples:
        The exact denoiser of values that are normally distributed with a deviation of 0.5:

        >>> import torch, tessera
        >>> def denoise(x, sigma):
        ...     return 0.25 * x / (0.25 + sigma[:, None] ** 2)
        >>> noise = torch.randn(4, 5000, generator=torch.Generator().manual_seed(0))
        >>> drawn = tessera.samplers.sample(denoise, noise, "UniPCMultistep", steps=30)
        >>> round(drawn.std().item(), 1)
        0.5
    """
    schedule = schedule or noise_schedule_of(make("DDPMScheduler", STABLE_DIFFUSION))
    made = plan(schedule, scheduler, steps, 1.0, spacing, final, options=options)
    entry, sigmas = made.choice.entry, made.sigmas
    if entry.rising:
        raise ValueError(f"{entry.name} makes noise of a sample and draws none; take DDIMScheduler.")
    check_sigmas(entry, sigmas)
    run = make_run(made.choice, schedule, sigmas, make_generator("portable", seed, noise.shape), noise.device)
    finite = FiniteCheck(entry, run.levels.steps)
    answer = denoiser(run, sigmas, denoise, noise.dtype, finite, callback, lambda: None)
    with torch.no_grad():
        drawn = drive(entry.stepper(run, start(run, sigmas[0] * noise, noise, torch.zeros_like(noise))), answer)
    finite.finish()
    return scaled(drawn, 1 / run.bridge.scale(float(run.levels.rho[-1])), noise.dtype)


class StepOutput(NamedTuple):
    """What a step of a scheduler returns."""

    prev_sample: Tensor


class PipelineScheduler:
    """A scheduler of a diffusers pipeline with the noise levels of a `plan`; made by `scheduler`.

    It does what pipelines ask of their schedulers: text to image, image to image, inpainting, control networks. Latents
    are the scheduler's own between the steps, as with diffusers' classes.
    """

    def __init__(self, like: Any, name: str, spacing: str, final: str, options: dict[str, Any]) -> None:
        self.like, self.name, self.spacing, self.final, self.options = like, name, spacing, final, options
        self.entry = find(name)
        self.config = like.config
        self.order = 2 if self.entry.calls.startswith("2n") else 1
        self.schedule = noise_schedule_of(like, fractional=self.entry.fractional)
        self.set_timesteps(1)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        *,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
    ) -> None:
        """Space the noise levels of a run.

        Args:
            num_inference_steps: 1..1000; may be left out where `sigmas` are given.
            device: of `timesteps`.
            sigmas: noise levels (steps,), used where the spacing is "auto"; else only their number counts.
            mu: of the image's size, see `shift_of`.

        Raises:
            ValueError: a number is out of range, or there is neither a number of steps nor sigmas.
        """
        if num_inference_steps is None and sigmas is None:
            raise ValueError("num_inference_steps is None and there are no sigmas; give one of them.")
        self.schedule = noise_schedule_of(self.like, mu, self.entry.fractional)
        count = len(sigmas) if sigmas is not None else num_inference_steps or 0
        made = plan(self.schedule, self.name, count, 1.0, self.spacing, self.final, "diffusers", self.options)
        self.choice, self.sigmas = made.choice, made.sigmas
        if sigmas is not None and self.spacing == "auto":
            given = torch.as_tensor(sigmas, dtype=torch.float32).cpu()
            given = torch.cat((as_drawn(given, self.config, mu) if self.schedule.flow else given, self.sigmas[-1:]))
            self.sigmas = merged(self.entry, given) if self.schedule.flow else given
        check_sigmas(self.entry, self.sigmas)
        self._calls = model_calls(self.choice, self.schedule, self.sigmas)
        levels = [self._sigma(call.rho) for call in self._calls]
        self.timesteps = self.schedule.timestep(torch.tensor(levels)).to(device)
        self.num_inference_steps = len(self.sigmas) - 1
        self.init_noise_sigma = self._first_strength()
        self._begin: int | None = None
        self._done = 0
        self._run: SchedulerRun | None = None
        self._steps: Steps | None = None
        self._asked: Asked | None = None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at a later call of the model, as image to image does.

        Raises:
            ValueError: the scheduler cannot begin there.
        """
        rest = model_calls(self.choice, self.schedule, self.sigmas[self._calls[begin_index].step :])
        if [call.rho for call in rest] != [call.rho for call in self._calls[begin_index:]]:
            raise ValueError(f"{self.entry.name} cannot begin at timestep {begin_index} of its run; take another.")
        self._begin = self._done = begin_index

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """Return what the network is given for the scheduler's latents (B, ...)."""
        self._start_at(timestep)
        rho = self._calls[self._done].rho
        preserving = 1.0 if self.schedule.flow else 1 / math.hypot(1, rho)
        return scaled(sample, preserving / self._bridge.scale(rho), sample.dtype)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """Go one call of the model further.

        Args:
            model_output: what the network predicts (B, ...).
            timestep: one of `timesteps`.
            sample: the scheduler's latents (B, ...).
            generator: of the noise that the scheduler adds.
            return_dict: whether `prev_sample` is a field or the only entry of a tuple.
        """
        self._start_at(timestep)
        if self._steps is None:
            self._begin_run(sample, generator)
        assert self._run is not None and self._steps is not None and self._asked is not None
        self._asked.sample = sample.to(self._run.levels.rho.dtype)
        self._asked.x0 = self._denoised(model_output, self._asked.sample, self._calls[self._done].rho)
        self._done += 1
        try:
            self._asked = next(self._steps)
            latents = self._asked.sample
        except StopIteration as end:
            latents = end.value
            # A pipeline may run the same timesteps again.
            self._steps, self._begin, self._done = None, None, 0
        latents = latents.to(model_output.dtype)
        return StepOutput(latents) if return_dict else (latents,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return latents (B, ...) with the noise of `timesteps` (B,) or (1,), each one of those of the run."""
        levels = [self._calls[self._index(timestep)].rho for timestep in timesteps.flatten()]
        shape = (-1, *(1 for _ in original_samples.shape[1:]))
        kept, added = (
            torch.tensor(factors, device=original_samples.device).reshape(shape)
            for factors in zip(*map(self._strengths, levels), strict=True)
        )
        return (kept * original_samples + added * noise).to(original_samples.dtype)

    def _strengths(self, rho: float) -> tuple[float, float]:
        """Return the factors of the image and of the noise in the scheduler's latents."""
        sigma, scale = self._sigma(rho), self._bridge.scale(rho)
        return scale * (1 - sigma if self.schedule.flow else 1.0), scale * sigma

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """Return `add_noise`, as pipelines of flows call it."""
        return self.add_noise(sample, noise, timestep)

    def __len__(self) -> int:
        return self.config["num_train_timesteps"]

    @property
    def _bridge(self) -> Any:
        return self.choice.bridge(self.schedule)

    def _sigma(self, rho: float) -> float:
        return self._bridge.sigma(rho)

    def _first_strength(self) -> float:
        """Return the factor of a pipeline's first noise: diffusers' own, where the class has a common step."""
        own = make_run(self.choice, self.schedule, self.sigmas, torch.Generator(), torch.device("cpu")).scheduler
        if self.entry.stepper is steppers.step and not self.schedule.flow and hasattr(own, "init_noise_sigma"):
            return float(own.init_noise_sigma)
        rho = self._calls[0].rho
        return self._bridge.scale(rho) * self._sigma(rho)

    def _index(self, timestep: Any) -> int:
        """Return which call a timestep belongs to; of those that share it, one that begins a step."""
        distance = (self.timesteps - torch.as_tensor(timestep).to(self.timesteps)).abs()
        alike = (distance == distance.min()).nonzero().flatten().tolist()
        return next((i for i in alike if i == 0 or self._calls[i].step > self._calls[i - 1].step), alike[0])

    def _start_at(self, timestep: Any) -> None:
        """Begin at the first timestep of a run, which may be a later one."""
        if self._steps is None and self._begin is None:
            self.set_begin_index(0 if timestep is None else self._index(timestep))

    def _begin_run(self, sample: Tensor, generator: Any) -> None:
        sigmas = self.sigmas[self._calls[self._done].step :]
        source = generator[0] if isinstance(generator, list) else generator
        source = torch.Generator().manual_seed(torch.seed() % 2**63) if source is None else source
        self._run = make_run(self.choice, self.schedule, sigmas, source, sample.device)
        self._steps = self.entry.stepper(self._run, sample.to(self._run.levels.rho.dtype))
        self._asked = next(self._steps)

    def _denoised(self, output: Tensor, sample: Tensor, rho: float) -> Tensor:
        """x0 (B, ...) of what the network predicts for the scheduler's latents."""
        x, sigma, output = sample / self._bridge.scale(rho), self._sigma(rho), output.to(sample.dtype)
        if self.schedule.prediction == "v_prediction":
            return x / (1 + sigma**2) - output * (sigma / math.hypot(1, sigma))
        return x - sigma * output


def model_calls(choice: Choice, schedule: NoiseSchedule, sigmas: Tensor) -> list[Asked]:
    """Return the calls of the model that a run over `sigmas` (steps + 1,) makes, found by a run on nothing."""
    run = make_run(choice, schedule, sigmas, torch.Generator().manual_seed(0), torch.device("cpu"))
    calls: list[Asked] = []

    def answer(asked: Asked) -> Tensor:
        calls.append(asked)
        return torch.ones_like(asked.sample)

    drive(choice.entry.stepper(run, torch.zeros(1, 1, 1, 1, dtype=run.levels.rho.dtype)), answer)
    return calls


def scheduler(name: str, like: Any, *, spacing: str = "auto", final: str = "zero", **options: Any) -> PipelineScheduler:
    """Make a scheduler for a diffusers pipeline: any of 25, with noise levels of any spacing.

    It knows the noise levels of the model from the scheduler that the pipeline came with. Every class takes every
    spacing, ends where it is told to, runs on rectified flows such as Flux too, and draws the noise of its steps from
    the pipeline's generator.

    Args:
        name: one of `NAMES`, with or without "Scheduler".
        like: the pipeline's own scheduler; keep it, as it is what can be saved.
        spacing: "auto", "leading", "trailing", "linspace", "karras", "exponential", "beta" or, for flows, "flow".
        final: "zero", or "sigma_min" for the lowest trained level.
        options: arguments of the scheduler, such as `solver_order` or `eta`.

    Raises:
        ValueError: the scheduler is unknown or inverts, an option does not apply to it, or the spacing is unknown.
        RuntimeError: diffusers is missing or too old.

    Examples:
        >>> import tessera
        >>> from diffusers import DDIMScheduler
        >>> made = tessera.samplers.scheduler("DPMSolverMultistep", DDIMScheduler(), spacing="karras", solver_order=3)
        >>> made.set_timesteps(4)
        >>> [round(float(t)) for t in made.timesteps]
        [999, 775, 301, 0]

        With a pipeline: `pipe.scheduler = tessera.samplers.scheduler("UniPCMultistep", pipe.scheduler)`.
    """
    if find(name).rising:
        raise ValueError(f"{find(name).name} makes noise of an image and draws none; take DDIMScheduler.")
    return PipelineScheduler(getattr(like, "like", like), name, spacing, final, options)
