"""Exponential integrators in half log SNR: RES, SEEDS, ER-SDE and the Stochastic Adams solver."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .denoising import DenoisingRun, VECoordinates
from .registry import sampler, variant
from .steps import ancestral_step, log_ratio, slope, toward


@sampler
def sample_res_multistep(
    run: DenoisingRun, x: Tensor, sigmas: Tensor, eta: float = 0.0, s_noise: float = 1.0, cfg_pp: bool = False
) -> Tensor:
    """RES, second order multistep (Zhang et al. 2023, arXiv:2308.02157), optionally ancestral and with CFG++."""
    uncond = run.keep_uncond() if cfg_pp else None
    past: tuple[Tensor, Any] | None = None
    for i, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(i, x, sigma)
        base = denoised if uncond is None else uncond()
        down, up = ancestral_step(sigma, sigma_next, eta)
        if down == 0 or past is None:
            x = denoised + slope(x, base, sigma) * down
        else:
            previous, last_down = past
            h = log_ratio(sigma, down)
            c2 = log_ratio(last_down, sigmas[i - 1]) / h
            phi1 = -(-h).expm1() / h
            b2 = ((1 - phi1) / h / c2).nan_to_num()
            x = (-h).exp() * (x + (denoised - base)) + h * ((phi1 - b2).nan_to_num() * base + b2 * previous)
        if up > 0:
            x = x + run.noise(sigma, sigma_next) * s_noise * up
        past = base, down
    return x


sample_res_multistep_cfg_pp = variant("res_multistep_cfg_pp", sample_res_multistep, cfg_pp=True)
sample_res_multistep_ancestral = variant("res_multistep_ancestral", sample_res_multistep, eta=1.0)
sample_res_multistep_ancestral_cfg_pp = variant(
    "res_multistep_ancestral_cfg_pp", sample_res_multistep, eta=1.0, cfg_pp=True
)


def _phi(h: Tensor) -> tuple[Tensor, Tensor]:
    """Return h phi_1(h) and h phi_2(h) of exponential integrators."""
    return h.expm1(), (h.expm1() - h) / h


class _StageNoise:
    """Noise that the stages of a SEEDS step share: at each one the noise so far decays and new noise is added.

    Args:
        h: the step in half log SNR.
    """

    def __init__(
        self, run: DenoisingRun, ve: VECoordinates, sigma: Tensor, h: Tensor, eta: float, s_noise: float
    ) -> None:
        self.run, self.ve, self.sigma, self.h, self.eta, self.s_noise = run, ve, sigma, h, eta, s_noise
        self.r = 0.0
        self.noise: Any = 0.0

    def at(self, sigma: Tensor, r: float) -> Any:
        """Return the noise in y at the noise level of a fraction r of the step."""
        if self.eta <= 0 or self.s_noise <= 0:
            return 0.0
        decay = (self.r - r) * self.h * self.eta
        fresh = (-(2 * decay).expm1()).sqrt() * self.run.noise(self.sigma, sigma)
        self.noise = self.noise * decay.exp() + fresh
        self.sigma, self.r = sigma, r
        return self.noise * self.ve.rho(sigma) * self.s_noise


@sampler
def sample_seeds_2(
    run: DenoisingRun,
    x: Tensor,
    sigmas: Tensor,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
    solver_type: str = "phi_1",
) -> Tensor:
    """SEEDS-2 (Gonzalez et al. 2023, arXiv:2305.14267); `solver_type` "phi_1" or "phi_2"."""
    if solver_type not in ("phi_1", "phi_2"):
        raise ValueError(f'solver_type is "{solver_type}", expected "phi_1" or "phi_2"')
    ve = VECoordinates(run)
    y = ve.start(x)
    for i, sigma, sigma_next in ve.steps():
        denoised = ve.denoise_and_report(i, y, sigma)
        if sigma_next == 0:
            y = denoised
            continue
        h = ve.half_log_snr(sigma_next) - ve.half_log_snr(sigma)
        decay = -h * (1 + eta)
        sigma_1 = ve.between(sigma, sigma_next, r)
        noise = _StageNoise(run, ve, sigma, h, eta, s_noise)
        y_1 = (r * decay).exp() * y - (r * decay).expm1() * denoised + noise.at(sigma_1, r)
        denoised_1 = ve.denoise(y_1, sigma_1)
        phi1, phi2 = _phi(decay)
        second = phi1 / (2 * r) if solver_type == "phi_1" else phi2 / r
        y = decay.exp() * y - ((phi1 - second) * denoised + second * denoised_1)
        y = y + noise.at(sigma_next, 1.0)
    return ve.finish(y)


sample_exp_heun_2_x0 = variant("exp_heun_2_x0", sample_seeds_2, eta=0.0, r=1.0, solver_type="phi_2")
sample_exp_heun_2_x0_sde = variant("exp_heun_2_x0_sde", sample_seeds_2, r=1.0, solver_type="phi_2")


@sampler
def sample_seeds_3(
    run: DenoisingRun,
    x: Tensor,
    sigmas: Tensor,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r_1: float = 1 / 3,
    r_2: float = 2 / 3,
) -> Tensor:
    """SEEDS-3 (Gonzalez et al. 2023, arXiv:2305.14267)."""
    ve = VECoordinates(run)
    y = ve.start(x)
    for i, sigma, sigma_next in ve.steps():
        denoised = ve.denoise_and_report(i, y, sigma)
        if sigma_next == 0:
            y = denoised
            continue
        h = ve.half_log_snr(sigma_next) - ve.half_log_snr(sigma)
        decay = -h * (1 + eta)
        sigma_1, sigma_2 = (ve.between(sigma, sigma_next, r) for r in (r_1, r_2))
        noise = _StageNoise(run, ve, sigma, h, eta, s_noise)
        y_1 = (r_1 * decay).exp() * y - (r_1 * decay).expm1() * denoised + noise.at(sigma_1, r_1)
        denoised_1 = ve.denoise(y_1, sigma_1)
        phi1, phi2 = _phi(r_2 * decay)
        second = r_2 / r_1 * phi2
        y_2 = (r_2 * decay).exp() * y - ((phi1 - second) * denoised + second * denoised_1)
        denoised_2 = ve.denoise(y_2 + noise.at(sigma_2, r_2), sigma_2)
        phi1, phi2 = _phi(decay)
        third = phi2 / r_2
        y = decay.exp() * y - ((phi1 - third) * denoised + third * denoised_2)
        y = y + noise.at(sigma_next, 1.0)
    return ve.finish(y)


@sampler
def sample_er_sde(run: DenoisingRun, x: Tensor, sigmas: Tensor, s_noise: float = 1.0, max_stage: int = 3) -> Tensor:
    """ER-SDE-Solver-3 (Cui et al. 2023, arXiv:2309.06169) with the noise scale rho * (exp(rho**0.3) + 10)."""
    points = 200
    ve = VECoordinates(run)
    rhos = ve.rho(ve.sigmas)
    y = ve.start(x)
    last, last_slope = None, None

    def scale(rho: Tensor) -> Tensor:
        return rho * ((rho**0.3).exp() + 10.0)

    for i, sigma, sigma_next in ve.steps():
        denoised = ve.denoise_and_report(i, y, sigma)
        if sigma_next == 0:
            y = denoised
            continue
        rho, rho_next = rhos[i], rhos[i + 1]
        step = rho_next - rho
        kept = scale(rho_next) / scale(rho)
        y = toward(y, denoised, 1.0, kept)
        if last is not None and max_stage >= 2:
            grid = rho_next - step / points * torch.arange(points, dtype=torch.float32, device=x.device)
            first = (1 / scale(grid)).sum() * (-step / points)
            d = (denoised - last) / (rho - rhos[i - 1])
            y = y + (step + first * scale(rho_next)) * d
            if last_slope is not None and max_stage >= 3:
                second = ((grid - rho) / scale(grid)).sum() * (-step / points)
                bend = (d - last_slope) / ((rho - rhos[i - 2]) / 2)
                y = y + (step**2 / 2 + second * scale(rho_next)) * bend
            last_slope = d
        if s_noise > 0:
            y = y + run.noise(sigma, sigma_next) * s_noise * (rho_next**2 - (rho * kept) ** 2).sqrt().nan_to_num()
        last = denoised
    return ve.finish(y)


@sampler
def sample_sa_solver(
    run: DenoisingRun,
    x: Tensor,
    sigmas: Tensor,
    s_noise: float = 1.0,
    predictor_order: int = 3,
    corrector_order: int = 4,
    use_pece: bool = False,
) -> Tensor:
    """Stochastic Adams solver (Xue et al. 2023, arXiv:2309.05019), stochastic between 20 % and 80 % of the times.

    `use_pece` evaluates the model again after the corrector.
    """
    ve = VECoordinates(run)
    ceiling, floor = (run.model_sampling.percent_to_sigma(percent) for percent in (0.2, 0.8))
    times = -ve.rho(ve.sigmas).log()
    total = len(sigmas) - 1
    ends_in_zero = bool(sigmas[-1] == 0)
    predictions: list[Tensor] = []
    y = predicted = ve.start(x)
    noise: Any = 0.0
    tau = 0.0
    for i, sigma, sigma_next in ve.steps():
        denoised = ve.denoise_and_report(i, predicted, sigma)
        predictions = [*predictions, denoised][-max(predictor_order, corrector_order) :]
        predictor = min(predictor_order, len(predictions))
        corrector = min(corrector_order, len(predictions))
        if i == 0 or (sigma_next == 0 and not use_pece):
            corrector = 0
        if ends_in_zero:
            predictor, corrector = min(predictor, total - 1 - i), min(corrector, total - i)
        if corrector == 0:
            y = predicted
        else:
            nodes = times[i - corrector + 1 : i + 1]
            y = _adams_step(y, predictions[-corrector:], nodes, times[i - 1], times[i], tau) + noise
            if use_pece:
                denoised = ve.denoise(y, sigma)
                predictions[-1] = denoised
        if sigma_next == 0:
            predicted = denoised
            continue
        tau = 1.0 if ceiling >= float(sigma_next) >= floor else 0.0
        nodes = times[i - predictor + 1 : i + 1]
        predicted = _adams_step(y, predictions[-predictor:], nodes, times[i], times[i + 1], tau)
        noise = 0.0
        if tau > 0 and s_noise > 0:
            spread = (-(-2 * tau**2 * (times[i + 1] - times[i])).expm1()).sqrt()
            noise = run.noise(sigma, sigma_next) * ve.rho(sigma_next) * spread * s_noise
        predicted = predicted + noise
    return ve.finish(predicted)


def _adams_step(y: Tensor, predictions: list[Tensor], nodes: Tensor, start: Tensor, end: Tensor, tau: float) -> Tensor:
    """Return y carried over start..end of half log SNR, x0 interpolated through the nodes (N,).

    SA-Solver, equations 14 to 18.
    """
    rate = 1 + tau**2
    h = end - start
    # The integral of rate * exp(rate (s - end)) s**p over start..end, by parts for each power p.
    integrals: list[Tensor] = []
    for p in range(len(nodes)):
        boundary = end**p - start**p * (-rate * h).exp()
        integrals.append(boundary - (p / rate * integrals[-1] if p else 0.0))
    powers = torch.stack([nodes**p for p in range(len(nodes))])
    weights = torch.linalg.solve(powers, torch.stack(integrals))
    y = (-rate * h).exp() * y
    return y + sum(w * prediction for w, prediction in zip(weights, predictions, strict=True))


sample_sa_solver_pece = variant("sa_solver_pece", sample_sa_solver, use_pece=True)
