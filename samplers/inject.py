"""Writing any noise levels into a fresh diffusers scheduler.

`set_timesteps` knows only a scheduler's own spacings on its own table. Each function here sets instead what `step`
reads, for noise levels of any number, and returns the model calls of the run. A run that ends above zero is set so that
its last step is as exact as the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor


class ModelCall(NamedTuple):
    """One call of the model: of which step, at which noise level, under which timestep of the scheduler."""

    step: int
    rho: float
    timestep: float


@dataclass(frozen=True)
class Levels:
    """The noise levels of a run.

    Attributes:
        rho: of the scheduler (steps + 1,), on the CPU, in the type that the scheduler works in.
        timesteps: the model's own timestep at each level but the last, 0..999.
        table: noise levels that the model was trained on, in rising order.
    """

    rho: Tensor
    timesteps: list[float]
    table: Tensor

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.rho) - 1

    @property
    def ends_above_zero(self) -> bool:
        """Whether noise is left at the end."""
        return bool(self.rho[-1] > 0)


Inject = Callable[[Any, Levels], list[ModelCall]]


def alpha_bar(rho: Tensor) -> Tensor:
    """Share of the signal in the variance (alphas_cumprod)."""
    return (1 / (1 + rho.double() ** 2)).to(rho.dtype)


def sigma_list(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """Euler, LMS, DPM-Solver multistep, UniPC, DEIS, SA-Solver: a list of sigmas, one call a step."""
    scheduler.sigmas = levels.rho
    _set_steps(scheduler, torch.tensor(levels.timesteps))
    return [ModelCall(i, float(levels.rho[i]), t) for i, t in enumerate(levels.timesteps)]


def ancestral(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """Euler ancestral: levels from which its step can take roots."""
    calls = sigma_list(scheduler, levels)
    scheduler.sigmas = with_roots(levels.rho)
    return calls


def with_roots(rho: Tensor) -> Tensor:
    """Return falling levels (steps + 1,) for which sigma ** 2 - sigma_up ** 2 is not below zero in their own type.

    It is sigma ** 4 over the square of the level before, which rounding makes negative where that is far above; such a
    level moves by single roundings.
    """
    rho = rho.clone()
    while True:
        here, target = rho[:-1], rho[1:]
        up = (target**2 * (here**2 - target**2) / here**2) ** 0.5
        negative = target**2 - up**2 < 0
        if not negative.any():
            return rho
        target[negative] = target[negative].nextafter(target.new_tensor(torch.inf))


def singlestep(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """DPM-Solver singlestep: also the order of each step."""
    scheduler.order_list = scheduler.get_order_list(levels.steps)
    return sigma_list(scheduler, levels)


def heun(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """Two calls a step, the second at the end of the step; none at zero."""
    # FlowMatchHeun lacks this attribute before `set_timesteps`.
    scheduler.dt = None
    return _two_calls(scheduler, levels, second=levels.rho[1:])


def kdpm2(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """Two calls a step, the second halfway in log sigma; none on the way to zero."""
    middle = _halfway(levels.rho, levels.rho.roll(1))
    scheduler.sigmas_interpol = _interleave(middle)
    return _two_calls(scheduler, levels, second=middle[1:])


def dpm_sde(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """DPM-Solver SDE: as `kdpm2`, and noise of one Brownian path."""
    return _two_calls(scheduler, levels, second=_halfway(levels.rho[1:], levels.rho[:-1]))


def kdpm2_ancestral(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """As `kdpm2`, on the way to a lower level from which fresh noise leads back up."""
    here, target = levels.rho[:-1], levels.rho[1:]
    up = target * (1 - (target / here) ** 2).sqrt()
    # The root of target ** 2 - up ** 2, which may round to less than zero.
    down = target**2 / here
    middle = _halfway(down, here)
    scheduler.sigmas_up, scheduler.sigmas_down = _interleave(up), _interleave(down)
    scheduler.sigmas_interpol = _interleave(middle)
    return _two_calls(scheduler, levels, second=middle)


def _two_calls(scheduler: Any, levels: Levels, second: Tensor) -> list[ModelCall]:
    scheduler.sigmas = _interleave(levels.rho)
    at = rearrange([levels.rho[:-1], second], "two steps -> (steps two)").tolist()
    calls = [ModelCall(i // 2, rho, float(i)) for i, rho in enumerate(at if levels.ends_above_zero else at[:-1])]
    _set_steps(scheduler, torch.tensor([call.timestep for call in calls]))
    scheduler.num_inference_steps = levels.steps
    return calls


def _interleave(values: Tensor) -> Tensor:
    """[a, b, c] as [a, b, b, c, c], in which these schedulers count calls."""
    return repeat(values, "levels -> (levels twice)", twice=2)[1:]


def _halfway(low: Tensor, high: Tensor) -> Tensor:
    """Return the geometric mean; the lower one first, which may be zero."""
    return low.log().lerp(high.log(), 0.5).exp()


def table(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """DDPM, DDIM: a private table of training levels with one entry a step, so that the next entry is the next step.

    A level above zero at the end is an entry of its own, which no call is made at.
    """
    entries = len(levels.rho) if levels.ends_above_zero else levels.steps
    kept = alpha_bar(levels.rho)
    scheduler.alphas_cumprod = kept[:entries].flip(0)
    scheduler.final_alpha_cumprod = scheduler.one = kept[-1]
    _set_steps(scheduler, torch.arange(entries - 1, -1, -1))
    return [ModelCall(i, float(levels.rho[i]), entries - 1 - i) for i in range(levels.steps)]


def pndm(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """PNDM without Runge-Kutta steps: the first step is made twice, the second time with the slope at its end."""
    calls = table(scheduler, levels)
    scheduler.prk_timesteps = []
    entries = len(scheduler.timesteps)
    if entries == 1:
        return calls
    again = ModelCall(0, float(levels.rho[1]), entries - 2)
    return [calls[0], again, *calls[1:]]


def lcm(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """LCM: the share of the noised latents in the result depends on the model's timestep, not on the table's."""
    share = scheduler.get_scalings_for_boundary_condition_discrete
    calls = table(scheduler, levels)
    true = {call.timestep: levels.timesteps[call.step] for call in calls}
    scheduler.get_scalings_for_boundary_condition_discrete = lambda timestep: share(true[timestep])
    return calls


def nearest(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """TCD: steps to a share of the model's own timestep, so its table stays and levels move to the nearest of it."""
    scheduler.alphas_cumprod = alpha_bar(levels.table)
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    wanted = levels.rho if levels.ends_above_zero else levels.rho[:-1]
    steps = (levels.table[:, None] - wanted).abs().argmin(dim=0)
    _set_steps(scheduler, steps)
    return [ModelCall(i, float(levels.table[step]), int(step)) for i, step in enumerate(steps[: levels.steps])]


def inverse(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """DDIM inverse: rising levels; the model answers for the end of the step it stands before (Mokady et al. 2022)."""
    kept = alpha_bar(levels.rho)
    scheduler.initial_alpha_cumprod = kept[0]
    scheduler.alphas_cumprod = kept[1:]
    _set_steps(scheduler, torch.arange(levels.steps))
    return [ModelCall(i, float(levels.rho[i + 1]), i) for i in range(levels.steps)]


def alphas_betas(scheduler: Any, levels: Levels) -> list[ModelCall]:
    """IPNDM: the signal and the noise of each level."""
    rho = levels.rho.double()
    alphas = 1 / (1 + rho**2).sqrt()
    scheduler.alphas, scheduler.betas = alphas.to(levels.rho.dtype), (alphas * rho).to(levels.rho.dtype)
    _set_steps(scheduler, torch.tensor(levels.timesteps))
    return [ModelCall(i, float(levels.rho[i]), t) for i, t in enumerate(levels.timesteps)]


def _set_steps(scheduler: Any, timesteps: Tensor) -> None:
    scheduler.timesteps = timesteps
    scheduler.num_inference_steps = len(timesteps)
    scheduler._begin_index = 0
    scheduler._step_index = None
    scheduler.is_scale_input_called = True
