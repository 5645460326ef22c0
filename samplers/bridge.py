"""Between a model's latents and the latents that a scheduler works on.

A model holds `x = x0 + sigma * noise` (epsilon and v) or, as a rectified flow, `x = (1 - sigma) * x0 + sigma * noise`.
Schedulers hold one of three: the model's own latents ("model"), variance exploding ones `x0 + rho * noise` ("ve"), or
variance preserving ones `(x0 + rho * noise) / sqrt(1 + rho ** 2)` ("vp"). `rho` is noise per signal; all conversions
are exact scalings at one noise level. (Karras et al. 2022, arXiv:2206.00364; Lipman et al. 2022, arXiv:2210.02747.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Space = Literal["model", "ve", "vp"]
Prediction = Literal["sample", "epsilon", "v_prediction"]


@dataclass(frozen=True)
class Bridge:
    """The conversions of one run.

    Attributes:
        space: latents that the scheduler works on.
        flow: whether the model is a rectified flow.
    """

    space: Space
    flow: bool

    @property
    def crosses(self) -> bool:
        """Whether noise levels are converted; Euler and other ODE solvers run on flow latents directly."""
        return self.flow and self.space != "model"

    def rho(self, sigma: Tensor, highest: float) -> Tensor:
        """Return the scheduler's noise levels of the model's sigmas; a flow's are clamped to `highest`, below 1."""
        if not self.crosses:
            return sigma
        sigma = sigma.clamp(max=highest)
        return sigma / (1 - sigma)

    def sigma(self, rho: float) -> float:
        """Return the model's sigma at a noise level of the scheduler."""
        return rho / (1 + rho) if self.crosses else rho

    def scale(self, rho: float) -> float:
        """Return the ratio of the scheduler's latents to the model's at the same noise level."""
        return (1 + rho if self.crosses else 1.0) / (math.hypot(1, rho) if self.space == "vp" else 1.0)

    def predict(self, kind: Prediction, sample: Tensor, x0: Tensor, rho: float) -> Tensor:
        """Return what a network of this kind would have predicted, from the denoised latents.

        Args:
            sample: the scheduler's latents (B, ...).
            x0: the denoised latents (B, ...).
            rho: their noise level, above 0.
        """
        if kind == "sample":
            return x0
        preserving = 1 / math.hypot(1, rho)
        alpha = preserving if self.space == "vp" else 1.0
        if kind == "epsilon":
            return (sample / (alpha * rho)).sub_(x0, alpha=1 / rho)
        return (sample * (preserving / (alpha * rho))).sub_(x0, alpha=1 / (preserving * rho))
