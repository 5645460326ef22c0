"""ComfyUI's core nodes that make noise levels, and change them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..sampling import schedules
from ..sampling.model_sampling import flux_time_shift
from ..schema import io
from ..schema.declare import Nodes, choice, decimal, integer, switch
from ..schema.limits import MAX_RESOLUTION

NODES = Nodes("model/sampling/schedulers")
SIGMAS = "model/sampling/sigmas"
MOST = 5000.0
NOT_ZERO = 0.0001
"""What a reversed schedule begins with in place of zero."""

ALIGNED = {
    "SD1": [14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904,
            0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582],
    "SDXL": [14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289,
             0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582],
    "SVD": [700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002],
}  # fmt: skip
"""Noise levels of 10 steps (Align Your Steps, Sabour et al. 2024, arXiv:2404.14507)."""


def _steps(default: int = 20, most: int = 10000) -> io.Int.Input:
    return integer("steps", default, 1, most, tooltip="How many steps.")


def _exact(name: str, default: float, high: float, tooltip: str, low: float = 0.0, step: float = 0.01) -> io.Input:
    return decimal(name, default, low, high, step, round=False, advanced=True, tooltip=tooltip)


def _extremes() -> list[io.Input]:
    return [
        _exact("sigma_max", 14.614642, MOST, "The highest level."),
        _exact("sigma_min", 0.0291675, MOST, "The lowest level above zero."),
    ]


@NODES(
    "KarrasScheduler",
    "KarrasScheduler",
    [_steps(), *_extremes(), _exact("rho", 7.0, 100.0, "Higher gives low levels more steps.")],
    [io.Sigmas],
)
def karras(steps: int, sigma_max: float, sigma_min: float, rho: float) -> Tensor:
    """Space noise levels evenly in a root of sigma."""
    return schedules.get_sigmas_karras(steps, sigma_min, sigma_max, rho)


@NODES("ExponentialScheduler", "ExponentialScheduler", [_steps(), *_extremes()], [io.Sigmas])
def exponential(steps: int, sigma_max: float, sigma_min: float) -> Tensor:
    """Space noise levels evenly in log sigma."""
    return schedules.get_sigmas_exponential(steps, sigma_min, sigma_max)


@NODES(
    "PolyexponentialScheduler",
    "PolyexponentialScheduler",
    [_steps(), *_extremes(), _exact("rho", 1.0, 100.0, "Higher gives low levels more steps.")],
    [io.Sigmas],
)
def polyexponential(steps: int, sigma_max: float, sigma_min: float, rho: float) -> Tensor:
    """Space noise levels by a power in log sigma."""
    return schedules.get_sigmas_polyexponential(steps, sigma_min, sigma_max, rho)


@NODES(
    "LaplaceScheduler",
    "LaplaceScheduler",
    [
        _steps(),
        *_extremes(),
        _exact("mu", 0.0, 10.0, "Log of the level that most steps are near.", -10.0, 0.1),
        _exact("beta", 0.5, 10.0, "How far they spread.", 0.0, 0.1),
    ],
    [io.Sigmas],
)
def laplace(steps: int, sigma_max: float, sigma_min: float, mu: float, beta: float) -> Tensor:
    """Concentrate noise levels around one of them."""
    return schedules.get_sigmas_laplace(steps, sigma_min, sigma_max, mu, beta)


@NODES(
    "VPScheduler",
    "VPScheduler",
    [
        _steps(),
        _exact("beta_d", 19.9, MOST, "How much the rate of noise grows."),
        _exact("beta_min", 0.1, MOST, "The rate of noise at the end."),
        _exact("eps_s", 0.001, 1.0, "Time of the last step.", 0.0, 0.0001),
    ],
    [io.Sigmas],
)
def variance_preserving(steps: int, beta_d: float, beta_min: float, eps_s: float) -> Tensor:
    """Space times of a variance-preserving process evenly."""
    return schedules.get_sigmas_vp(steps, beta_d, beta_min, eps_s)


@NODES(
    "BetaSamplingScheduler",
    "BetaSamplingScheduler",
    [
        io.Model.Input("model"),
        _steps(),
        _exact("alpha", 0.6, 50.0, "Lower gives high levels more steps."),
        _exact("beta", 0.6, 50.0, "Lower gives low levels more steps."),
    ],
    [io.Sigmas],
)
def beta(model: Any, steps: int, alpha: float, beta: float) -> Tensor:
    """Concentrate noise levels at both ends."""
    return schedules.beta_scheduler(model.get_model_object("model_sampling"), steps, alpha, beta)


@NODES(
    "SDTurboScheduler",
    "SDTurboScheduler",
    [
        io.Model.Input("model"),
        _steps(1, 10),
        decimal("denoise", 1.0, 0, 1.0, tooltip="Below 1 the first levels are left out."),
    ],
    [io.Sigmas],
)
def turbo(model: Any, steps: int, denoise: float) -> Tensor:
    """Take the noise levels that turbo models were distilled to."""
    first = 10 - int(10 * denoise)
    times = (torch.arange(10, 0, -1) * 100 - 1)[first : first + steps]
    sigmas = model.get_model_object("model_sampling").sigma(times)
    return torch.cat([sigmas, sigmas.new_zeros(1)])


@NODES(
    "AlignYourStepsScheduler",
    "AlignYourStepsScheduler",
    [
        choice("model_type", list(ALIGNED), tooltip="The model family."),
        _steps(10),
        decimal("denoise", 1.0, 0.0, 1.0, tooltip="Below 1 the first levels are left out."),
    ],
    [io.Sigmas],
    search_aliases=["AYS scheduler"],
)
def align_your_steps(model_type: str, steps: int, denoise: float) -> Tensor:
    """Take noise levels that were optimised for a family; other numbers of steps are interpolated."""
    import numpy as np

    if denoise <= 0.0:
        return torch.tensor([])
    sigmas = np.array(ALIGNED[model_type])
    if steps + 1 != len(sigmas):
        places = np.linspace(0, 1, steps + 1), np.linspace(0, 1, len(sigmas))
        sigmas = np.exp(np.interp(*places, np.log(sigmas[::-1])))[::-1].copy()
    kept = sigmas[-(round(steps * denoise) + 1) :]
    kept[-1] = 0
    return torch.tensor(kept, dtype=torch.float32)


@NODES(
    "Flux2Scheduler",
    "Flux2Scheduler",
    [
        integer("steps", 20, 1, 4096, tooltip="How many steps."),
        integer("width", 1024, 16, MAX_RESOLUTION),
        integer("height", 1024, 16, MAX_RESOLUTION),
    ],
    [io.Sigmas],
)
def flux2(steps: int, width: int, height: int) -> Tensor:
    """Space Flux.2's noise levels for an image size and a number of steps."""
    return flux_time_shift(flux2_mu(round(width * height / 256), steps), 1.0, torch.linspace(1, 0, steps + 1))


def flux2_mu(tokens: int, steps: int) -> float:
    """Return the shift of Flux.2's schedule, linear in the number of tokens and of steps (black-forest-labs/flux2)."""
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    slope = (at_200 - (8.73809524e-05 * tokens + 1.89833333)) / 190.0
    return slope * steps + at_200 - 200.0 * slope


@NODES(
    "ManualSigmas",
    "ManualSigmas",
    [io.String.Input("sigmas", default="1, 0.5", tooltip="Falling numbers; anything may stand between them.")],
    [io.Sigmas],
    SIGMAS,
    is_experimental=True,
    search_aliases=["custom noise schedule", "define sigmas"],
)
def manual(sigmas: str) -> Tensor:
    """Enter noise levels as text."""
    found = re.findall(r"[-+]?(?:\d*\.*\d+)", sigmas)
    return torch.tensor([float(each) for each in found], dtype=torch.float32)


@NODES(
    "SplitSigmasDenoise",
    "SplitSigmasDenoise",
    [io.Sigmas.Input("sigmas"), decimal("denoise", 1.0, 0.0, 1.0, tooltip="Part of the steps in the second half.")],
    [("high_sigmas", io.Sigmas), ("low_sigmas", io.Sigmas)],
    SIGMAS,
)
def split_denoise(sigmas: Tensor, denoise: float) -> tuple[Tensor, Tensor]:
    """Cut noise levels in two by a denoise."""
    last = round(max(sigmas.shape[-1] - 1, 0) * denoise)
    return sigmas[:-last], sigmas[-(last + 1) :]


@NODES("FlipSigmas", "FlipSigmas", [io.Sigmas.Input("sigmas")], [io.Sigmas], SIGMAS)
def flip(sigmas: Tensor) -> Tensor:
    """Reverse noise levels, to add noise instead of removing it."""
    turned = sigmas.flip(0)
    if len(turned) and turned[0] == 0:
        turned[0] = NOT_ZERO
    return turned


@NODES(
    "SetFirstSigma",
    "SetFirstSigma",
    [
        io.Sigmas.Input("sigmas"),
        decimal("sigma", 136.0, 0.0, 20000.0, 0.001, round=False, tooltip="The level."),
    ],
    [io.Sigmas],
    SIGMAS,
)
def set_first(sigmas: Tensor, sigma: float) -> Tensor:
    """Change the first noise level."""
    return torch.cat([sigmas.new_tensor([sigma]), sigmas[1:]])


SPACINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "cosine": lambda x: torch.sin(x * math.pi / 2),
    "sine": lambda x: 1 - torch.cos(x * math.pi / 2),
}


@NODES(
    "ExtendIntermediateSigmas",
    "ExtendIntermediateSigmas",
    [
        io.Sigmas.Input("sigmas"),
        integer("steps", 2, 1, 100, tooltip="How many steps each becomes."),
        decimal("start_at_sigma", -1.0, -1.0, 20000.0, round=False, tooltip="The highest level; -1 is all."),
        decimal("end_at_sigma", 12.0, 0.0, 20000.0, round=False, tooltip="The lowest level."),
        choice("spacing", list(SPACINGS), tooltip="Where the new levels lie."),
    ],
    [io.Sigmas],
    SIGMAS,
    search_aliases=["interpolate sigmas"],
)
def extend(sigmas: Tensor, steps: int, start_at_sigma: float, end_at_sigma: float, spacing: str) -> Tensor:
    """Divide some steps into several."""
    highest = math.inf if start_at_sigma < 0 else start_at_sigma
    between = SPACINGS[spacing](torch.linspace(0, 1, steps + 1)[1:-1])
    levels: list[float] = []
    for one, two in zip(sigmas, sigmas[1:], strict=False):
        levels.append(float(one))
        if end_at_sigma <= one <= highest:
            levels += (between * (two - one) + one).tolist()
    return torch.tensor(levels + [float(sigma) for sigma in sigmas[-1:]], dtype=torch.float32)


@NODES(
    "SamplingPercentToSigma",
    "SamplingPercentToSigma",
    [
        io.Model.Input("model"),
        decimal("sampling_percent", 0.0, 0.0, 1.0, 0.0001, tooltip="Part of the schedule that is done."),
        switch("return_actual_sigma", False, tooltip="Whether the ends are the model's own extremes."),
    ],
    [("sigma_value", io.Float)],
    SIGMAS,
)
def percent_to_sigma(model: Any, sampling_percent: float, return_actual_sigma: bool) -> float:
    """Return the noise level that is reached after a part of the schedule."""
    sampling = model.get_model_object("model_sampling")
    ends = {0.0: sampling.sigma_max, 1.0: sampling.sigma_min}
    if return_actual_sigma and sampling_percent in ends:
        return float(ends[sampling_percent])
    return sampling.percent_to_sigma(sampling_percent)
