"""Noise levels of the steps of a run (drop-in replacement for the schedulers of `comfy.samplers` and k-diffusion).

Each function returns falling sigmas (steps + 1,) that end in 0; a few schedules leave out steps that would repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ZERO_SIGMA = 1e-5
"""Below this a schedule's own last sigma counts as zero."""


def _ending_in_zero(sigmas: list[float] | Tensor) -> Tensor:
    sigmas = torch.as_tensor(sigmas, dtype=torch.float32)
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def simple_scheduler(model_sampling: Any, steps: int) -> Tensor:
    """Return evenly spaced indices of the trained noise levels, from the highest."""
    sigmas, stride = model_sampling.sigmas, len(model_sampling.sigmas) / steps
    return _ending_in_zero([float(sigmas[-(1 + int(i * stride))]) for i in range(steps)])


def ddim_scheduler(model_sampling: Any, steps: int) -> Tensor:
    """Return every k-th trained noise level from the second on (Song et al. 2020, arXiv:2010.02502)."""
    sigmas = model_sampling.sigmas
    starts_at_zero = float(sigmas[1]) < ZERO_SIGMA
    stride = max(len(sigmas) // (steps + 1 if starts_at_zero else steps), 1)
    chosen = [float(sigma) for sigma in sigmas[1::stride]]
    return torch.tensor(([] if starts_at_zero else [0.0]) + chosen).flip(0)


def normal_scheduler(model_sampling: Any, steps: int, sgm: bool = False) -> Tensor:
    """Return evenly spaced timesteps.

    `sgm` leaves out the last, the lowest noise level (Stability-AI/generative-models).
    """
    start, end = (float(model_sampling.timestep(s)) for s in (model_sampling.sigma_max, model_sampling.sigma_min))
    if sgm:
        timesteps = torch.linspace(start, end, steps + 1)[:-1]
    elif float(model_sampling.sigma(torch.tensor(end))) < ZERO_SIGMA:
        return _sigmas_at(model_sampling, torch.linspace(start, end, steps + 1))
    else:
        timesteps = torch.linspace(start, end, steps)
    return _ending_in_zero(_sigmas_at(model_sampling, timesteps))


def _sigmas_at(model_sampling: Any, timesteps: Tensor) -> Tensor:
    return torch.tensor([float(model_sampling.sigma(t)) for t in timesteps])


def beta_scheduler(model_sampling: Any, steps: int, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """Return timesteps at quantiles of a beta distribution, denser at both ends (Lee et al. 2024, arXiv:2407.12173)."""
    import numpy as np
    import scipy.stats

    quantiles = scipy.stats.beta.ppf(1 - np.linspace(0, 1, steps, endpoint=False), alpha, beta)
    timesteps = np.rint(quantiles * (len(model_sampling.sigmas) - 1)).astype(int)
    return _ending_in_zero([float(model_sampling.sigmas[t]) for t in dict.fromkeys(timesteps.tolist())])


def linear_quadratic_schedule(model_sampling: Any, steps: int, threshold_noise: float = 0.025) -> Tensor:
    """Return half of the steps linear over the first 2.5 % of the noise, then quadratic (Mochi 1, genmoai/models)."""
    if steps == 1:
        return torch.tensor([1.0, 0.0]) * model_sampling.sigma_max.cpu()
    linear = steps // 2
    quadratic = steps - linear
    excess = linear - threshold_noise * steps
    a = excess / (linear * quadratic**2)
    b = threshold_noise / linear - 2 * excess / quadratic**2
    c = a * linear**2
    removed = [i * threshold_noise / linear for i in range(linear)]
    removed += [a * i**2 + b * i + c for i in range(linear, steps)]
    return torch.tensor([1.0 - r for r in [*removed, 1.0]]) * model_sampling.sigma_max.cpu()


def get_sigmas_karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Return evenly spaced in sigma**(1 / rho) (Karras et al. 2022, arXiv:2206.00364, eq. 5)."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return _ending_in_zero((high + torch.linspace(0, 1, n) * (low - high)) ** rho)


def get_sigmas_exponential(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Return evenly spaced in log sigma."""
    return _ending_in_zero(torch.linspace(math.log(sigma_max), math.log(sigma_min), n).exp())


def get_sigmas_polyexponential(n: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> Tensor:
    """Return sigmas whose logarithm falls as a power of the step."""
    ramp = torch.linspace(1, 0, n) ** rho
    return _ending_in_zero((ramp * (math.log(sigma_max) - math.log(sigma_min)) + math.log(sigma_min)).exp())


def get_sigmas_vp(n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3) -> Tensor:
    """Return the levels of a continuous variance-preserving process (Song et al. 2020, arXiv:2011.13456)."""
    t = torch.linspace(1, eps_s, n)
    return _ending_in_zero((beta_d * t**2 / 2 + beta_min * t).expm1().sqrt())


def get_sigmas_laplace(n: int, sigma_min: float, sigma_max: float, mu: float = 0.0, beta: float = 0.5) -> Tensor:
    """Return quantiles of a Laplace distribution of log sigma, without a zero (Hang et al. 2024, arXiv:2407.03297)."""
    away = 0.5 - torch.linspace(0, 1, n)
    log_sigmas = mu - beta * away.sign() * (1 - 2 * away.abs() + 1e-5).log()
    return log_sigmas.exp().clamp(sigma_min, sigma_max)


def kl_optimal_scheduler(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Return evenly spaced in atan(sigma) (Align Your Steps, Sabour et al. 2024, arXiv:2404.14507, theorem 3.1)."""
    ramp = torch.arange(n, dtype=torch.float32) / max(n - 1, 1)
    return _ending_in_zero((ramp * math.atan(sigma_min) + (1 - ramp) * math.atan(sigma_max)).tan())


def _between_extremes(schedule: Callable[[int, float, float], Tensor]) -> Callable[[Any, int], Tensor]:
    def sigmas(model_sampling: Any, steps: int) -> Tensor:
        return schedule(steps, float(model_sampling.sigma_min), float(model_sampling.sigma_max))

    return sigmas


SCHEDULERS: dict[str, Callable[[Any, int], Tensor]] = {
    "simple": simple_scheduler,
    "sgm_uniform": lambda model_sampling, steps: normal_scheduler(model_sampling, steps, sgm=True),
    "karras": _between_extremes(get_sigmas_karras),
    "exponential": _between_extremes(get_sigmas_exponential),
    "ddim_uniform": ddim_scheduler,
    "beta": beta_scheduler,
    "normal": normal_scheduler,
    "linear_quadratic": linear_quadratic_schedule,
    "kl_optimal": _between_extremes(kl_optimal_scheduler),
}
SCHEDULER_NAMES = list(SCHEDULERS)


def calculate_sigmas(model_sampling: Any, scheduler_name: str, steps: int) -> Tensor:
    """Return the sigmas of a schedule by ComfyUI's name.

    Args:
        model_sampling: of the model, see `model_sampling`.
        steps: at least 1.

    Raises:
        ValueError: there is no such schedule.
    """
    if scheduler_name not in SCHEDULERS:
        raise ValueError(f'scheduler is "{scheduler_name}", expected one of {", ".join(SCHEDULER_NAMES)}')
    return SCHEDULERS[scheduler_name](model_sampling, steps)
