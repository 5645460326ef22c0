"""Methods that reuse slopes or predictions of earlier steps, and two that denoise and noise again."""

from __future__ import annotations

import torch
from torch import Tensor

from .denoising import DenoisingRun
from .registry import sampler
from .steps import slope, toward

ADAMS_BASHFORTH = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Adams-Bashforth weights of the latest slope and the ones before it, by order."""


@sampler
def sample_ipndm(run: DenoisingRun, x: Tensor, sigmas: Tensor, max_order: int = 4) -> Tensor:
    """Adams-Bashforth as if all steps were equal (Zhang and Chen 2022, arXiv:2204.13902; zju-pi/diff-sampler)."""
    slopes: list[Tensor] = []
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        slopes = [slope(x, denoised, sigma), *slopes][:max_order]
        if sigma_next == 0:
            x = denoised
            continue
        weights = ADAMS_BASHFORTH[len(slopes) - 1]
        x = x + (sigma_next - sigma) * sum(w * d for w, d in zip(weights, slopes, strict=True))
    return x


@sampler
def sample_ipndm_v(run: DenoisingRun, x: Tensor, sigmas: Tensor, max_order: int = 4) -> Tensor:
    """Adams-Bashforth for unequal steps, in the weights of zju-pi/diff-sampler."""
    slopes: list[Tensor] = []
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        slopes = [slope(x, denoised, sigma), *slopes][:max_order]
        if sigma_next == 0:
            x = denoised
            continue
        steps = [sigmas[j + 1] - sigmas[j] for j in range(i, i - len(slopes), -1)]
        weights = unequal_step_weights(steps)
        x = x + (sigma_next - sigma) * sum(w * d for w, d in zip(weights, slopes, strict=True))
    return x


def unequal_step_weights(steps: list[Tensor]) -> list[Tensor]:
    """Return the weights of the slopes, from the steps (this one, the one before, ...).

    Their number is the order, 1 to 4.
    """
    h = steps[0]
    if len(steps) == 1:
        return [torch.ones_like(h)]
    h1 = steps[1]
    weights = [1 + h / h1 / 2, -h / h1 / 2]
    if len(steps) == 2:
        return weights
    h2 = steps[2]
    bend = (1 - h**2 / (3 * h1 * (h1 + h2))) / 2
    weights = _plus(weights, [bend, -(1 + h1 / h2) * bend, h1 / h2 * bend])
    if len(steps) == 3:
        return weights
    h3 = steps[3]
    twist = (1 - h / (3 * (h + h1))) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))
    twist = twist * h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3))
    q = h1 * (h1 + h2) / (h2 * (h2 + h3))
    third = h1 / h2 + q * (1 + h2 / h3)
    return _plus(weights, [twist, -(1 + h1 / h2 + q) * twist, third * twist, -q * h1 / h2 * twist])


def _plus(weights: list[Tensor], correction: list[Tensor]) -> list[Tensor]:
    longer = [*weights, torch.zeros_like(correction[-1])]
    return [w + c for w, c in zip(longer, correction, strict=True)]


@sampler
def sample_deis(run: DenoisingRun, x: Tensor, sigmas: Tensor, max_order: int = 3) -> Tensor:
    """DEIS in time (tAB): slopes interpolated in t and integrated (Zhang and Chen 2022, arXiv:2204.13902)."""
    times, beta_min, beta_max = edm_times(sigmas.detach().cpu())
    slopes: list[Tensor] = []
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        slopes = [slope(x, denoised, sigma), *slopes][:max_order]
        if sigma_next == 0 or len(slopes) == 1:
            x = toward(x, denoised, sigma, sigma_next)
            continue
        nodes = times[torch.arange(i, i - len(slopes), -1)]
        weights = deis_weights(nodes, times[i], times[i + 1], beta_min, beta_max)
        x = x + sum(w.to(x) * d for w, d in zip(weights, slopes, strict=True))
    return x


def edm_times(
    sigmas: Tensor, epsilon: float = 1e-3, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (times, beta_0, beta_1) of the VP process, sigma_min..sigma_max over epsilon..1 (Karras et al. 2022)."""
    low, high = (torch.log(torch.tensor(s) ** 2 + 1) for s in (sigma_min, sigma_max))
    slope_of_beta = 2 * (low / epsilon - high) / (epsilon - 1)
    beta_0 = high - 0.5 * slope_of_beta
    times = ((beta_0**2 + 2 * slope_of_beta * (sigmas**2 + 1).log()).sqrt() - beta_0) / slope_of_beta
    return times, beta_0, beta_0 + slope_of_beta


def deis_weights(
    nodes: Tensor, start: Tensor, end: Tensor, beta_0: Tensor, beta_1: Tensor, points: int = 10000
) -> list[Tensor]:
    """Return Riemann sums over start..end of the Lagrange polynomials of the nodes (N,) times d sigma / dt."""
    t = torch.linspace(float(start), float(end), points)
    alpha = torch.exp(-0.5 * t**2 * (beta_1 - beta_0) - t * beta_0)
    integrand = 0.5 * (t * (beta_1 - beta_0) + beta_0) / torch.sqrt(alpha * (1 - alpha))
    weights = []
    for j in range(len(nodes)):
        others = [k for k in range(len(nodes)) if k != j]
        basis = torch.stack([(t - nodes[k]) / (nodes[j] - nodes[k]) for k in others]).prod(dim=0)
        weights.append((integrand * basis).sum() * ((end - start) / points))
    return weights


@sampler
def sample_ddpm(run: DenoisingRun, x: Tensor, sigmas: Tensor) -> Tensor:
    """Ancestral sampling of DDPM (Ho et al. 2020, arXiv:2006.11239, algorithm 2) with its lower variance."""
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        bar, bar_next = 1 / (sigma**2 + 1), 1 / (sigma_next**2 + 1)
        beta = 1 - bar / bar_next
        eps = slope(x, denoised, sigma)
        x = (x * bar.sqrt() - beta * eps / (1 - bar).sqrt()) / (1 - beta).sqrt()
        if sigma_next > 0:
            x = x + (beta * (1 - bar_next) / (1 - bar)).sqrt() * run.noise(sigma, sigma_next)
            x = x / bar_next.sqrt()
    return x


@sampler
def sample_lcm(run: DenoisingRun, x: Tensor, sigmas: Tensor, s_noise: float = 1.0) -> Tensor:
    """Latent consistency: the prediction, noised anew to the next level (Luo et al. 2023, arXiv:2310.04378)."""
    for i, sigma, sigma_next in run.steps():
        x = run.denoise_and_report(i, x, sigma)
        if sigma_next > 0:
            x = run.model_sampling.noise_scaling(sigma_next, run.noise(sigma, sigma_next) * s_noise, x)
    return x


@sampler
def sample_gradient_estimation(run: DenoisingRun, x: Tensor, sigmas: Tensor, ge_gamma: float = 2.0) -> Tensor:
    """Euler with the slope pushed beyond the last one (Permenter and Yuan 2023, arXiv:2306.04848)."""
    last = None
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        d = slope(x, denoised, sigma)
        x = toward(x, denoised, sigma, sigma_next)
        if last is not None and sigma_next > 0:
            x = x + (ge_gamma - 1) * (d - last) * (sigma_next - sigma)
        last = d
    return x
