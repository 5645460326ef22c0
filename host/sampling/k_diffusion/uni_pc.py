"""UniPC, the unified predictor-corrector (Zhao et al. 2023, arXiv:2302.04867), third order, predicting x0."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import registry
from .denoising import DenoisingRun

LAST_SIGMA = 0.001
"""Takes the place of a last sigma of zero, where half log SNR would be infinite."""


class Level(NamedTuple):
    """A noise level of the variance preserving process."""

    sigma: Tensor
    alpha: Tensor
    std: Tensor
    half_log_snr: Tensor


def level(sigma: Tensor) -> Level:
    """Return the level of a sigma.

    Its float32 rounding near sigma 0 is part of the published numbers, so keep the order.
    """
    log_alpha = 0.5 * torch.log(1 / ((sigma * sigma) + 1))
    variance = 1.0 - torch.exp(2.0 * log_alpha)
    return Level(sigma, log_alpha.exp(), variance.sqrt(), log_alpha - 0.5 * variance.log())


@registry.sampler
def sample_uni_pc(run: DenoisingRun, x: Tensor, sigmas: Tensor, variant: str = "bh1") -> Tensor:
    """UniPC-3; `variant` is B(h) = h ("bh1") or e^h - 1 ("bh2")."""
    if sigmas[-1] == 0:
        # In place: the run ends at this sigma for everybody.
        sigmas[-1] = LAST_SIGMA
    total = len(sigmas) - 1
    order = min(3, total - 1)
    x = x / torch.sqrt(1.0 + sigmas[0] ** 2.0)
    past = [(level(sigmas[0]), run.denoise(x * torch.sqrt(1.0 + sigmas[0] ** 2.0), sigmas[0]))]
    run.report(0, x, sigmas[0], past[0][1])
    for step in range(1, total + 1 if order else 1):
        now = level(sigmas[step])
        step_order = min(order, step, total + 1 - step)
        x, denoised = _update(run, x, past[-step_order:], now, variant, correct=step < total)
        if denoised is not None:
            past = [*past, (now, denoised)][-3:]
        if step != total - 1:
            run.report(min(step, total - 1), x, sigmas[step], past[-1][1])
    return x / level(sigmas[-1]).alpha


def _update(
    run: DenoisingRun, x: Tensor, past: list[tuple[Level, Tensor]], now: Level, variant: str, correct: bool
) -> tuple[Tensor, Tensor | None]:
    """Make one step (algorithms 5 and 6), of the order of the number of past levels.

    The prediction if it was corrected.
    """
    (last, last_denoised), order = past[-1], len(past)
    h = now.half_log_snr - last.half_log_snr
    ratios = [(before.half_log_snr - last.half_log_snr) / h for before, _ in past[-2::-1]]
    bends = [(denoised - last_denoised) / r for (_, denoised), r in zip(past[-2::-1], ratios, strict=True)]
    phi = torch.expm1(-h)
    scale = -h if variant == "bh1" else phi
    powers, right = _conditions(torch.stack([*ratios, torch.ones_like(h)]), -h, scale)
    base = now.std / last.std * x - now.alpha * phi * last_denoised
    # The published shortcuts for low orders.
    half = torch.full_like(h, 0.5).reshape(1)
    weights = half if order == 2 else torch.linalg.solve(powers[:-1, :-1], right[:-1])
    predicted = base - now.alpha * scale * _weighted(weights, bends)
    if not correct:
        return predicted, None
    denoised = run.denoise(predicted * torch.sqrt(now.sigma**2 + 1.0), now.sigma)
    weights = half if order == 1 else torch.linalg.solve(powers, right)
    bends = [*bends, denoised - last_denoised]
    return base - now.alpha * scale * _weighted(weights, bends), denoised


def _conditions(ratios: Tensor, hh: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the order conditions: powers (order, order) of the ratios and their right side (order,)."""
    right = []
    phi, factorial = torch.expm1(hh) / hh - 1, 1
    for i in range(1, len(ratios) + 1):
        right.append(phi * factorial / scale)
        factorial *= i + 1
        phi = phi / hh - 1 / factorial
    return torch.stack([ratios**i for i in range(len(ratios))]), torch.stack(right)


def _weighted(weights: Tensor, bends: list[Tensor]) -> Tensor | float:
    return sum((w * bend for w, bend in zip(weights, bends, strict=True)), start=0.0)


sample_uni_pc_bh2 = registry.variant("uni_pc_bh2", sample_uni_pc, variant="bh2")
