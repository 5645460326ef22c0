"""Noise levels of a model, read from its `model_sampling`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

WHOLE = 1e-3
"""Differences from a whole timestep below this are rounding."""


def sampling_of(model: Any) -> Any:
    """Return the `model_sampling` of a host's MODEL."""
    return model.get_model_object("model_sampling")


def sigma_at(model: Any, percent: float) -> float:
    """Return the noise level of a MODEL at a fraction of the schedule (0..1)."""
    return float(sampling_of(model).percent_to_sigma(percent))


Prediction = Literal["epsilon", "v_prediction", "flow"]


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise levels that a model was trained on.

    Attributes:
        sigmas: (T,) in rising order. A rectified flow is `x = (1 - sigma) * x0 + sigma * noise`, with sigmas of at
            most 1; other models are `x = x0 + sigma * noise`.
        prediction: what the network predicts.
        timestep: from sigmas (N,) to the timesteps (N,) that the network is given, on a scale of 0..1000.
    """

    sigmas: Tensor
    prediction: Prediction
    timestep: Callable[[Tensor], Tensor]

    @property
    def flow(self) -> bool:
        """Whether the model is a rectified flow."""
        return self.prediction == "flow"


def noise_schedule(model_sampling: Any) -> NoiseSchedule:
    """Return the noise levels of a host's `model_sampling`; one that is a NoiseSchedule already is returned itself."""
    if isinstance(model_sampling, NoiseSchedule):
        return model_sampling
    # Classes are named alike in every host, and none is imported.
    names = {kind.__name__ for kind in type(model_sampling).__mro__}
    if "CONST" in names:
        return NoiseSchedule(model_sampling.sigmas, "flow", lambda sigmas: sigmas * 1000)
    prediction = "v_prediction" if "V_PREDICTION" in names else "epsilon"
    return NoiseSchedule(model_sampling.sigmas, prediction, model_sampling.timestep)


@contextmanager
def fractional_timesteps(model_sampling: Any) -> Iterator[None]:
    """Give the network timesteps between the trained ones for levels between theirs, as diffusers does.

    ComfyUI rounds to the nearest. Models without a trained table, or with a rule of their own, are not changed.
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
    """Return timesteps (B,), 0..T - 1, of sigmas (B,), interpolated linearly in log sigma on a rising table (T,)."""
    log_sigma = sigma.to(log_sigmas).log()
    above = torch.searchsorted(log_sigmas, log_sigma).clamp(1, len(log_sigmas) - 1)
    low, high = log_sigmas[above - 1], log_sigmas[above]
    time = above - 1 + ((log_sigma - low) / (high - low)).clamp(0, 1)
    whole = time.round()
    return torch.where((time - whole).abs() < WHOLE, whole, time).to(sigma.device)
