"""Closed-form denoisers, called as samplers call a model, and diffusers' own loop over the same network."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from tessera.host.sampling import model_sampling as host
from tessera.samplers import build, registry, sampler, spacing
from torch import Tensor

SHAPE = (2, 4, 8, 8)
SEED = 7
# Stable Diffusion's training levels, as every configuration of its kind has them.
TRAINED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
LATENTS = {
    "clip_sample": False,
    "skip_prk_steps": True,
    "set_alpha_to_one": True,
    "lower_order_final": True,
    "noise_sampler_seed": SEED,
}


class Epsilon(host.ModelSamplingDiscrete, host.EPS):
    pass


class Velocity(host.ModelSamplingDiscrete, host.V_PREDICTION):
    pass


class Flow(host.ModelSamplingDiscreteFlow, host.CONST):
    pass


def network(x: Tensor, t: Tensor) -> Tensor:
    """Smooth and not linear, of latents (B, 4, H, W) and times 0..1000 (B,)."""
    t = t.reshape(-1, 1, 1, 1).float() / 1000
    mixed = 0.5 * x + 0.3 * x.roll(1, 1) + 0.2 * x.roll(1, 2) - 0.4 * x.roll(1, 3)
    return (0.1 + 0.85 * t) * x + 0.3 * torch.tanh(mixed) + 0.2 * torch.cos(3 * t)


def alphas_cumprod() -> Tensor:
    """Of diffusers: in float32, where ComfyUI's differ by rounding."""
    return build.make("DDPMScheduler", TRAINED).alphas_cumprod


def model_sampling(kind: str) -> Any:
    """Of "epsilon", "v_prediction" or "flow"."""
    if kind == "flow":
        made = Flow()
        made.set_parameters(shift=3.0)
        return made
    made = {"epsilon": Epsilon, "v_prediction": Velocity}[kind]()
    kept = alphas_cumprod()
    made.set_sigmas(((1 - kept) / kept) ** 0.5)
    return made


class Model:
    """A network, or a denoiser `f(x, sigma) -> x0`, as KSAMPLER hands a model over. Records the sigmas of its calls."""

    def __init__(
        self,
        kind: str,
        net: Callable[[Tensor, Tensor], Tensor] = network,
        denoiser: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.model_sampling = model_sampling(kind)
        self.net, self.denoiser = net, denoiser
        self.inner_model = SimpleNamespace(inner_model=self)
        self.latent_image: Tensor | None = None
        self.noise: Tensor | None = None
        self.calls: list[float] = []

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        self.calls.append(0.0 if sigma.is_meta else float(sigma[0]))
        if self.denoiser is not None:
            return self.denoiser(x, sigma.reshape(-1, 1, 1, 1))
        space = self.model_sampling
        return space.calculate_denoised(sigma, self.net(space.calculate_input(sigma, x), space.timestep(sigma)), x)


def noise(shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED))


def from_noise(
    name: str, model: Model, sigmas: Tensor, start: Tensor | None = None, mode: Any = "portable", **options: Any
) -> Tensor:
    """Samples an empty latent."""
    start = noise() if start is None else start
    model.latent_image, model.noise = torch.zeros_like(start), start
    x = model.model_sampling.noise_scaling(sigmas[0], start, model.latent_image, True)
    return resume(name, model, x, sigmas, mode, **options)


def resume(name: str, model: Model, x: Tensor, sigmas: Tensor, mode: Any = "portable", **options: Any) -> Tensor:
    """Samples on from latents with noise in them."""
    choice = sampler.Choice(registry.find(name), options, mode)
    return sampler.sample(model, x, sigmas, {"seed": SEED}, choice=choice)


def levels(name: str, model: Model, steps: int, **spaced: Any) -> Tensor:
    return spacing.sigmas(registry.find(name), model.model_sampling, steps, **spaced)


def diffusers_loop(
    scheduler: Any, steps: int, start: Tensor, net: Callable[[Tensor, Tensor], Tensor] = network, skip: int = 0
) -> Tensor:
    """What a pipeline does: latents in the scheduler's space after its steps, its generator past the initial noise."""
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(SEED)
    torch.randn(start.shape, generator=generator)
    takes = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
    x = start if skip else start * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps[skip:]:
        output = net(scale(x, t), t.expand(len(x)))
        x = scheduler.step(output, t, x, **takes).prev_sample
    return x


def relative(x: Tensor, reference: Tensor) -> float:
    """Largest error over largest value."""
    return ((x - reference).abs().max() / reference.abs().max()).item()
