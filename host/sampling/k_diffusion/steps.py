"""Steps from one noise level to the next, as the samplers' papers share them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .denoising import DenoisingRun


def toward(x: Tensor, denoised: Tensor, sigma: Any, target: Any) -> Tensor:
    """Return the straight step to a lower noise level: DDIM's and the first order of DPM-Solver++."""
    return denoised + (x - denoised) * (target / sigma)


def slope(x: Tensor, denoised: Tensor, sigma: Any) -> Tensor:
    """Return dx / dsigma of the probability flow (Karras et al. 2022, eq. 1)."""
    return (x - denoised) / sigma


def ancestral_step(sigma: Any, target: Any, eta: float = 1.0) -> tuple[Any, Any]:
    """Return (noise level to step down to, noise to add) so that the sum has the level `target`."""
    if not eta:
        return target, 0.0
    # At an infinite sigma the second is not a number, and min takes the first: its limit at eta 1.
    up = min(target, eta * (target**2 * (sigma**2 - target**2) / sigma**2) ** 0.5)
    return (target**2 - up**2) ** 0.5, up


def flow_ancestral_step(sigma: Tensor, target: Tensor, eta: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return (noise level to step down to, factor of the latents, noise to add) of a rectified flow."""
    down = target * (1 + (target / sigma - 1) * eta)
    factor = (1 - target) / (1 - down)
    return down, factor, (target**2 - down**2 * factor**2) ** 0.5


def any_ancestral_step(run: DenoisingRun, sigma: Tensor, target: Tensor, eta: float) -> tuple[Any, Any, Any]:
    """Return `ancestral_step` or `flow_ancestral_step`, whichever the model needs, in the latter's form."""
    if run.flow:
        return flow_ancestral_step(sigma, target, eta)
    down, up = ancestral_step(sigma, target, eta)
    return down, 1.0, up


def geometric_mean(a: Tensor, b: Tensor) -> Tensor:
    """Return the noise level halfway in log sigma."""
    return a.log().lerp(b.log(), 0.5).exp()


def log_ratio(rho: Tensor, rho_next: Tensor) -> Tensor:
    """Return the step h > 0 in half log SNR."""
    return (rho / rho_next).log()
