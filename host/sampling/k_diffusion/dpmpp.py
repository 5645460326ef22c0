"""DPM-Solver++ and its stochastic forms (Lu et al. 2022, arXiv:2211.01095; Katherine Crowson's k-diffusion)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .denoising import DenoisingRun, VECoordinates
from .registry import sampler, variant
from .steps import ancestral_step, any_ancestral_step, geometric_mean, log_ratio, toward


@sampler
def sample_dpmpp_2m(run: DenoisingRun, x: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver++(2M): arXiv:2211.01095, algorithm 2."""
    previous = None
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        ahead = denoised
        if previous is not None and sigma_next > 0:
            ratio = log_ratio(sigma, sigma_next) / log_ratio(sigmas[i - 1], sigma)
            ahead = denoised + (denoised - previous) * (ratio / 2)
        x = toward(x, ahead, sigma, sigma_next)
        previous = denoised
    return x


@sampler
def sample_dpmpp_2s_ancestral(
    run: DenoisingRun, x: Tensor, sigmas: Tensor, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver++(2S), arXiv:2211.01095, algorithm 1, to a lower noise level, then noise up to the next one."""
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        down, factor, up = any_ancestral_step(run, sigma, sigma_next, eta)
        if down == 0:
            x = denoised
        else:
            middle = _middle(sigma, down, run.flow)
            x_middle = toward(x, denoised, sigma, middle)
            x = toward(x, run.denoise(x_middle, middle), sigma, down)
        if eta > 0:
            x = factor * x + run.noise(sigma, sigma_next) * s_noise * up
    return x


def _middle(sigma: Tensor, down: Tensor, flow: bool) -> Any:
    """Return the noise level halfway in half log SNR.

    At the start of a flow, where that is infinite, just below the start.
    """
    if not flow:
        return geometric_mean(sigma, down)
    if sigma == 1.0:
        return 0.9999
    rho = geometric_mean(sigma / (1 - sigma), down / (1 - down))
    return rho / (1 + rho)


@sampler
def sample_dpmpp_sde(
    run: DenoisingRun,
    x: Tensor,
    sigmas: Tensor,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 1 / 2,
    cpu: bool = True,
) -> Tensor:
    """DPM-Solver++(S) with noise in both stages (k-diffusion)."""
    run.use_brownian_noise(cpu)
    ve = VECoordinates(run)
    y = ve.start(x)

    def stage(y: Tensor, denoised: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
        down, up = ancestral_step(ve.rho(sigma), ve.rho(target), eta)
        y = toward(y, denoised, ve.rho(sigma), down)
        return y + run.noise(sigma, target) * s_noise * up if eta > 0 and s_noise > 0 else y

    for i, sigma, sigma_next in ve.steps():
        denoised = ve.denoise_and_report(i, y, sigma)
        if sigma_next == 0:
            y = denoised
            continue
        start = ve.half_log_snr(sigma)
        middle = ve.sigma_at(start + r * (ve.half_log_snr(sigma_next) - start))
        denoised_middle = ve.denoise(stage(y, denoised, sigma, middle), middle)
        ahead = denoised + (denoised_middle - denoised) / (2 * r)
        y = stage(y, ahead, sigma, sigma_next)
    return ve.finish(y)


@sampler
def sample_dpmpp_2m_sde(
    run: DenoisingRun,
    x: Tensor,
    sigmas: Tensor,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: str = "midpoint",
    cpu: bool = True,
) -> Tensor:
    """SDE-DPM-Solver++(2M): arXiv:2211.01095, appendix; `solver_type` "midpoint" or "heun"."""
    if solver_type not in ("midpoint", "heun"):
        raise ValueError(f'solver_type is "{solver_type}", expected "midpoint" or "heun"')
    run.use_brownian_noise(cpu)
    ve = VECoordinates(run)
    y = ve.start(x)
    past: tuple[Tensor, Tensor] | None = None
    for i, sigma, sigma_next in ve.steps():
        denoised = ve.denoise_and_report(i, y, sigma)
        if sigma_next == 0:
            y = denoised
            continue
        h = log_ratio(ve.rho(sigma), ve.rho(sigma_next))
        decay = -(h * (1 + eta))
        y = decay.exp() * y - decay.expm1() * denoised
        if past is not None:
            previous, h_last = past
            weight = -decay.expm1() / 2 if solver_type == "midpoint" else 1 - decay.expm1() / decay
            y = y + weight * (h / h_last) * (denoised - previous)
        y = _renoised(run, ve, y, sigma, sigma_next, h, eta, s_noise)
        past = denoised, h
    return ve.finish(y)


def _renoised(
    run: DenoisingRun,
    ve: VECoordinates,
    y: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    h: Tensor,
    eta: float,
    s_noise: float,
) -> Tensor:
    """Return the exact noise of the SDE over a step h of half log SNR."""
    if eta <= 0 or s_noise <= 0:
        return y
    return y + run.noise(sigma, sigma_next) * ve.rho(sigma_next) * (-(-2 * h * eta).expm1()).sqrt() * s_noise


@sampler
def sample_dpmpp_3m_sde(
    run: DenoisingRun, x: Tensor, sigmas: Tensor, eta: float = 1.0, s_noise: float = 1.0, cpu: bool = True
) -> Tensor:
    """SDE-DPM-Solver++(3M), of lower order in the first two steps (k-diffusion)."""
    run.use_brownian_noise(cpu)
    ve = VECoordinates(run)
    y, past, hs = ve.start(x), [], []
    for i, sigma, sigma_next in ve.steps():
        denoised = ve.denoise_and_report(i, y, sigma)
        if sigma_next == 0:
            y = denoised
            continue
        h = log_ratio(ve.rho(sigma), ve.rho(sigma_next))
        decay = -(h * (1 + eta))
        y = decay.exp() * y - decay.expm1() * denoised
        phi2 = 1 - decay.expm1() / decay
        if past:
            d0 = (denoised - past[0]) * (h / hs[0])
            if len(past) == 1:
                y = y + phi2 * d0
            else:
                r0, r1 = hs[0] / h, hs[1] / h
                bend = (d0 - (past[0] - past[1]) / r1) / (r0 + r1)
                y = y + phi2 * (d0 + bend * r0) - (phi2 / -decay - 0.5) * bend
        y = _renoised(run, ve, y, sigma, sigma_next, h, eta, s_noise)
        past, hs = [denoised, *past][:2], [h, *hs][:2]
    return ve.finish(y)


sample_dpmpp_2m_sde_heun = variant("dpmpp_2m_sde_heun", sample_dpmpp_2m_sde, solver_type="heun")
# The "gpu" forms draw the Brownian path on the latents' own device.
sample_dpmpp_sde_gpu = variant("dpmpp_sde_gpu", sample_dpmpp_sde, cpu=False)
sample_dpmpp_2m_sde_gpu = variant("dpmpp_2m_sde_gpu", sample_dpmpp_2m_sde, cpu=False)
sample_dpmpp_2m_sde_heun_gpu = variant("dpmpp_2m_sde_heun_gpu", sample_dpmpp_2m_sde, solver_type="heun", cpu=False)
sample_dpmpp_3m_sde_gpu = variant("dpmpp_3m_sde_gpu", sample_dpmpp_3m_sde, cpu=False)
