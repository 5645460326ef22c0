"""What a run has to know of a model's noise levels, read from its `model_sampling`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# Nearer to a whole timestep than this is rounding.
WHOLE = 1e-3


def sampling_of(model: Any) -> Any:
    """Return the `model_sampling` of a host's MODEL."""
    return model.get_model_object("model_sampling")


def sigma_at(model: Any, percent: float) -> float:
    """Return the noise level of a MODEL at a fraction of the schedule (0..1)."""
    return float(sampling_of(model).percent_to_sigma(percent))


def is_a(model_sampling: Any, name: str) -> bool:
    """Whether a class of this name is among its classes; they are named alike in every host and imported by none."""
    return any(kind.__name__ == name for kind in type(model_sampling).__mro__)


def is_flow(model_sampling: Any) -> bool:
    """Whether the model is a rectified flow, `x = (1 - sigma) * x0 + sigma * noise`."""
    return is_a(model_sampling, "CONST")


def trained_timesteps(model_sampling: Any, sigmas: Tensor) -> list[float]:
    """What the model is told at each sigma, on a scale of 0..1000."""
    times = sigmas * 1000 if is_flow(model_sampling) else model_sampling.timestep(sigmas)
    return times.float().tolist()


@contextmanager
def fractional_timesteps(model_sampling: Any) -> Iterator[None]:
    """Give the network timesteps between the trained ones for levels between theirs, as diffusers does.

    ComfyUI rounds to the nearest. Models that have no trained table, or their own rule, stay as they are.
    """
    kinds = [kind for kind in type(model_sampling).__mro__ if kind.__name__ == "ModelSamplingDiscrete"]
    if not kinds or type(model_sampling).timestep is not kinds[0].timestep:
        yield
        return
    own = vars(model_sampling).get("timestep")
    model_sampling.timestep = lambda sigma: interpolated_timestep(model_sampling.log_sigmas, sigma)
    try:
        yield
    finally:
        del model_sampling.timestep
        if own is not None:
            model_sampling.timestep = own


def interpolated_timestep(log_sigmas: Tensor, sigma: Tensor) -> Tensor:
    """Timesteps of sigmas (B,) on a rising table of log sigmas (T,), linear in log sigma, 0..T - 1."""
    log_sigma = sigma.to(log_sigmas).log()
    above = torch.searchsorted(log_sigmas, log_sigma).clamp(1, len(log_sigmas) - 1)
    low, high = log_sigmas[above - 1], log_sigmas[above]
    time = above - 1 + ((log_sigma - low) / (high - low)).clamp(0, 1)
    whole = time.round()
    return torch.where((time - whole).abs() < WHOLE, whole, time).to(sigma.device)
