"""DPM-Solver in its fast and its adaptive form (Lu et al. 2022, arXiv:2206.00927), in t = -log sigma."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .denoising import DenoisingRun
from .registry import sampler


def _eps(run: DenoisingRun, x: Tensor, t: Tensor) -> Tensor:
    sigma = (-t).exp()
    return (x - run.denoise(x, sigma)) / sigma


def _step1(x: Tensor, t: Tensor, h: Tensor, eps: Tensor) -> Tensor:
    return x - (-(t + h)).exp() * h.expm1() * eps


def _step2(
    run: DenoisingRun, x: Tensor, t: Tensor, h: Tensor, eps: Tensor, r1: float, eps_r1: Tensor | None = None
) -> Tensor:
    if eps_r1 is None:
        eps_r1 = _eps(run, _step1(x, t, r1 * h, eps), t + r1 * h)
    return _step1(x, t, h, eps) - (-(t + h)).exp() / (2 * r1) * h.expm1() * (eps_r1 - eps)


def _step3(run: DenoisingRun, x: Tensor, t: Tensor, h: Tensor, eps: Tensor, eps_r1: Tensor | None = None) -> Tensor:
    r1, r2 = 1 / 3, 2 / 3
    if eps_r1 is None:
        eps_r1 = _eps(run, _step1(x, t, r1 * h, eps), t + r1 * h)
    t2 = t + r2 * h
    bend2 = (-t2).exp() * (r2 / r1) * ((r2 * h).expm1() / (r2 * h) - 1)
    eps_r2 = _eps(run, _step1(x, t, r2 * h, eps) - bend2 * (eps_r1 - eps), t2)
    bend = (-(t + h)).exp() / r2 * (h.expm1() / h - 1)
    return _step1(x, t, h, eps) - bend * (eps_r2 - eps)


def _interval(sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """Return the times t of the first sigma and of the last one above zero."""
    last = sigmas[-2] if sigmas[-1] == 0 else sigmas[-1]
    return -sigmas[0].log(), -last.log()


@sampler
def sample_dpm_fast(run: DenoisingRun, x: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver-fast: as many third-order steps as fit in one model call per sigma."""
    calls = len(sigmas) - 1
    thirds = calls // 3 + 1
    orders = [3] * (thirds - 2) + [2, 1] if calls % 3 == 0 else [3] * (thirds - 1) + [calls % 3]
    start, end = _interval(sigmas)
    times = torch.linspace(float(start), float(end), thirds + 1, device=x.device)
    for i, order in enumerate(orders):
        t, h = times[i], times[i + 1] - times[i]
        eps = _eps(run, x, t)
        run.report(i, x, (-t).exp(), x - (-t).exp() * eps)
        if order == 1:
            x = _step1(x, t, h, eps)
        elif order == 2:
            x = _step2(run, x, t, h, eps, 1 / 2)
        else:
            x = _step3(run, x, t, h, eps)
    return x


@sampler
def sample_dpm_adaptive(
    run: DenoisingRun,
    x: Tensor,
    sigmas: Tensor,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    accept_safety: float = 0.81,
) -> Tensor:
    """DPM-Solver-23: steps as long as the second and the third order agree. Only the ends of `sigmas` count.

    They may rise, which adds noise.
    """
    t, end = _interval(sigmas)
    falls = bool(t < end)
    size, i, x_low_accepted = h_init if falls else -h_init, 0, x
    while (end - t if falls else t - end) > 1e-5:
        t_next = torch.minimum(end, t + size) if falls else torch.maximum(end, t + size)
        h = t_next - t
        eps = _eps(run, x, t)
        eps_r1 = _eps(run, _step1(x, t, 1 / 3 * h, eps), t + 1 / 3 * h)
        x_low = _step2(run, x, t, h, eps, 1 / 3, eps_r1)
        x_high = _step3(run, x, t, h, eps, eps_r1)
        tolerance = (rtol * torch.maximum(x_low.abs(), x_low_accepted.abs())).clamp(min=atol)
        error = float(torch.linalg.norm((x_low - x_high) / tolerance)) / x.numel() ** 0.5
        # Integral control of the step size, its factor limited by an arc tangent (k-diffusion).
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / 3) - 1)
        denoised = x - (-t).exp() * eps
        if factor >= accept_safety:
            x_low_accepted, x, t = x_low, x_high, t_next
        size *= factor
        run.report(i, x, (-t).exp(), denoised)
        i += 1
    return x
