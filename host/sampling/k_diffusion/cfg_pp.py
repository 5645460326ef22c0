"""CFG++: steps that add back the noise of the negative prediction (Chung et al. 2024, arXiv:2406.08070)."""

from __future__ import annotations

from torch import Tensor

from .denoising import DenoisingRun, VECoordinates
from .registry import sampler, variant
from .steps import ancestral_step, geometric_mean, log_ratio, slope, toward


@sampler
def sample_euler_ancestral_cfg_pp(
    run: DenoisingRun, x: Tensor, sigmas: Tensor, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """Euler ancestral with CFG++."""
    uncond = run.keep_uncond()
    ve = VECoordinates(run)
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        noise = (x - ve.alpha(sigma) * uncond()) / sigma
        alpha_next = ve.alpha(sigma_next)
        down, up = ancestral_step(ve.rho(sigma), ve.rho(sigma_next), eta)
        x = alpha_next * (denoised + down * noise)
        if eta > 0 and s_noise > 0:
            x = x + alpha_next * run.noise(sigma, sigma_next) * s_noise * up
    return x


@sampler
def sample_dpmpp_2s_ancestral_cfg_pp(
    run: DenoisingRun, x: Tensor, sigmas: Tensor, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver++(2S) ancestral with CFG++."""
    uncond = run.keep_uncond()
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        down, up = ancestral_step(sigma, sigma_next, eta)
        if down == 0:
            x = denoised
        else:
            middle = geometric_mean(sigma, down)
            x_middle = toward(x + (denoised - uncond()), denoised, sigma, middle)
            denoised_middle = run.denoise(x_middle, middle)
            # The negative prediction is the middle's by now.
            x = toward(x + (denoised - uncond()), denoised_middle, sigma, down)
        x = x + run.noise(sigma, sigma_next) * s_noise * up
    return x


@sampler
def sample_dpmpp_2m_cfg_pp(run: DenoisingRun, x: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver++(2M) with CFG++."""
    uncond = run.keep_uncond()
    previous = None
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        ratio = sigma_next / sigma
        x = denoised + (x - uncond()) * ratio
        if previous is not None and sigma_next > 0:
            bend = log_ratio(sigma, sigma_next) / log_ratio(sigmas[i - 1], sigma) / 2
            x = x + (1 - ratio) * bend * (denoised - previous)
        previous = uncond()
    return x


@sampler
def sample_gradient_estimation_cfg_pp(run: DenoisingRun, x: Tensor, sigmas: Tensor, ge_gamma: float = 2.0) -> Tensor:
    """Gradient estimation (arXiv:2306.04848) with CFG++."""
    uncond = run.keep_uncond()
    last = None
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        d = slope(x, uncond(), sigma)
        x = denoised + d * sigma_next
        if last is not None and sigma_next > 0:
            x = x + (ge_gamma - 1) * (d - last) * (sigma_next - sigma)
        last = d
    return x


sample_euler_cfg_pp = variant("euler_cfg_pp", sample_euler_ancestral_cfg_pp, eta=0.0)
