"""Euler's, Heun's and two-stage methods in sigma, with their ancestral forms (Karras et al. 2022, arXiv:2206.00364)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .denoising import DenoisingRun
from .registry import sampler
from .steps import any_ancestral_step, geometric_mean, slope


@sampler
def sample_euler(run: DenoisingRun, x: Tensor, sigmas: Tensor) -> Tensor:
    """Euler: algorithm 2 of Karras et al. without noise and correction."""
    for i, sigma, sigma_next in run.steps():
        x = x + slope(x, run.denoise_and_report(i, x, sigma), sigma) * (sigma_next - sigma)
    return x


@sampler
def sample_euler_ancestral(
    run: DenoisingRun, x: Tensor, sigmas: Tensor, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """Euler steps to a lower noise level, then noise up to the next one."""
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        down, factor, up = any_ancestral_step(run, sigma, sigma_next, eta)
        # Where a high eta leaves nothing but noise, ComfyUI adds none, but for flows.
        if sigma_next == 0 or (down == 0 and not run.flow):
            x = denoised
            continue
        x = x + slope(x, denoised, sigma) * (down - sigma)
        if eta > 0:
            x = factor * x + run.noise(sigma, sigma_next) * s_noise * up
    return x


@sampler
def sample_heun(run: DenoisingRun, x: Tensor, sigmas: Tensor) -> Tensor:
    """Heun: algorithm 2 of Karras et al. without noise."""
    for i, sigma, sigma_next in run.steps():
        d = slope(x, run.denoise_and_report(i, x, sigma), sigma)
        x_euler = x + d * (sigma_next - sigma)
        if sigma_next == 0:
            x = x_euler
            continue
        d_next = slope(x_euler, run.denoise(x_euler, sigma_next), sigma_next)
        x = x + (d + d_next) / 2 * (sigma_next - sigma)
    return x


@sampler
def sample_heunpp2(run: DenoisingRun, x: Tensor, sigmas: Tensor) -> Tensor:
    """Heun++ with up to two look-ahead slopes, weighted by their sigmas (Carzit/sd-webui-samplers-scheduler)."""
    for i, sigma, sigma_next in run.steps():
        d = slope(x, run.denoise_and_report(i, x, sigma), sigma)
        slopes, ahead = [d], x
        for j in range(i, min(i + 2, len(sigmas) - 2)):
            ahead = ahead + slopes[-1] * (sigmas[j + 1] - sigmas[j])
            slopes.append(slope(ahead, run.denoise(ahead, sigmas[j + 1]), sigmas[j + 1]))
        weights = [s / (len(slopes) * sigmas[0]) for s in sigmas[i + 1 : i + len(slopes)]]
        mean = (1 - sum(weights)) * d + sum(w * s for w, s in zip(weights, slopes[1:], strict=True))
        x = x + mean * (sigma_next - sigma)
    return x


@sampler
def sample_dpm_2(run: DenoisingRun, x: Tensor, sigmas: Tensor) -> Tensor:
    """The midpoint rule in log sigma: DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927)."""
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        x = denoised if sigma_next == 0 else _midpoint(run, x, denoised, sigma, sigma_next)
    return x


@sampler
def sample_dpm_2_ancestral(
    run: DenoisingRun, x: Tensor, sigmas: Tensor, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver-2 steps to a lower noise level, then noise up to the next one."""
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        down, factor, up = any_ancestral_step(run, sigma, sigma_next, eta)
        if down == 0:
            x = denoised
            continue
        x = factor * _midpoint(run, x, denoised, sigma, down) + run.noise(sigma, sigma_next) * s_noise * up
    return x


def _midpoint(run: DenoisingRun, x: Tensor, denoised: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    middle = geometric_mean(sigma, target)
    x_middle = x + slope(x, denoised, sigma) * (middle - sigma)
    return x + slope(x_middle, run.denoise(x_middle, middle), middle) * (target - sigma)


@sampler
def sample_lms(run: DenoisingRun, x: Tensor, sigmas: Tensor, order: int = 4) -> Tensor:
    """Linear multistep in sigma: the latest slopes interpolated by a polynomial and integrated (k-diffusion)."""
    levels = sigmas.detach().cpu().double().numpy()
    slopes: list[Tensor] = []
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        slopes = [slope(x, denoised, sigma), *slopes][:order]
        if sigma_next == 0:
            x = denoised
            continue
        known = levels[i - np.arange(len(slopes))]
        weights = lagrange_integrals(known, levels[i], levels[i + 1])
        x = x + sum(w * d for w, d in zip(weights, slopes, strict=True))
    return x


def lagrange_integrals(nodes: np.ndarray, start: float, end: float) -> list[float]:
    """Return the integrals from start to end of the Lagrange polynomials over the nodes (N,)."""
    integrals = []
    for j, node in enumerate(nodes):
        others = np.delete(nodes, j)
        antiderivative = np.polyint(np.atleast_1d(np.poly(others)))
        rise = np.polyval(antiderivative, end) - np.polyval(antiderivative, start)
        integrals.append(float(rise / np.prod(node - others)))
    return integrals
