"""What a denoiser predicts and at which noise levels (drop-in replacement for `comfy.model_sampling`).

A model's sampling is composed of a prediction (EPS, V_PREDICTION, X0, CONST) and a schedule of noise levels
(ModelSamplingDiscrete, ModelSamplingDiscreteFlow, ModelSamplingFlux): `class ModelSampling(schedule, prediction)`.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

ALPHA_BAR_AT_ZERO_SNR = 4.8973451890853435e-08
"""Keeps sigma finite where a zero-terminal-SNR schedule has no signal left."""

SIGMA_BEFORE_START = 999999999.9
""""Before every step": above any sigma of a variance-exploding schedule."""


class HasSamplingSettings(Protocol):
    """A model configuration, as far as a schedule reads it."""

    sampling_settings: dict[str, Any]


def reshape_sigma(sigma: Tensor, ndim: int) -> Tensor:
    """Return a sigma per sample (B,) in a shape that broadcasts over (B, ...) of `ndim` dimensions.

    One sigma as a scalar.
    """
    if sigma.nelement() == 1:
        return sigma.view(())
    return sigma.view(sigma.shape[:1] + (1,) * (ndim - 1))


class EPS:
    """The model predicts the noise of `x = x0 + sigma * noise`."""

    sigma_data: float = 1.0

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """Return the latents scaled to what the model expects."""
        sigma = reshape_sigma(sigma, noise.ndim)
        return noise / (sigma**2 + self.sigma_data**2) ** 0.5

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """Return x0 from the model's output and the unscaled latents."""
        return model_input - model_output * reshape_sigma(sigma, model_output.ndim)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """Return the noised image at `sigma`; at full strength the variance of the whole is that of training."""
        sigma = reshape_sigma(sigma, noise.ndim)
        return noise * (torch.sqrt(1.0 + sigma**2.0) if max_denoise else sigma) + latent_image

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """Return sampled latents at `sigma` in the scale of images."""
        return latent


class V_PREDICTION(EPS):  # noqa: N801
    """The model predicts v (Salimans and Ho 2022, arXiv:2202.00512)."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """Return x0 from the model's output and the unscaled latents."""
        sigma = reshape_sigma(sigma, model_output.ndim)
        variance = sigma**2 + self.sigma_data**2
        return model_input * self.sigma_data**2 / variance - model_output * sigma * self.sigma_data / variance**0.5


class X0(EPS):
    """The model predicts the image."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """Return x0 from the model's output and the unscaled latents."""
        return model_output


class IMG_TO_IMG(X0):  # noqa: N801
    """The model turns the latents that it is given, as they are, into those of another image."""

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """Return what goes into the denoiser."""
        return noise


class LCM(EPS):
    """A latent consistency model: predicts noise, and its x0 is mixed with its input by the boundary condition.

    Luo et al. 2023, arXiv:2310.04378, section 4.1, with timesteps scaled by 10.
    """

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """Return x0 from the model's output and the unscaled latents."""
        times = reshape_sigma(self.timestep(sigma), model_output.ndim) * 10.0  # pyright: ignore[reportAttributeAccessIssue]
        total = times**2 + 0.25
        x0 = model_input - model_output * reshape_sigma(sigma, model_output.ndim)
        return times / total**0.5 * x0 + 0.25 / total * model_input


class CONST:
    """Rectified flow: the model predicts the velocity of `x = (1 - sigma) * x0 + sigma * noise`, sigma in 0..1."""

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """Return the latents scaled to what the model expects."""
        return noise

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """Return x0 from the model's output and the latents."""
        return model_input - model_output * reshape_sigma(sigma, model_output.ndim)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """Return the noised image at `sigma`."""
        sigma = reshape_sigma(sigma, noise.ndim)
        return sigma * noise + (1.0 - sigma) * latent_image

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """Return sampled latents at `sigma` in the scale of images."""
        return latent / (1.0 - reshape_sigma(sigma, latent.ndim))


class Schedule(torch.nn.Module):
    """Noise levels of training, in rising order in the buffer `sigmas`."""

    sigmas: Tensor

    @property
    def sigma_min(self) -> Tensor:
        """The lowest noise level."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        """The highest noise level."""
        return self.sigmas[-1]

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return what the model is told at `sigma`."""
        raise NotImplementedError

    def sigma(self, timestep: Tensor) -> Tensor:
        """Return the noise level at a timestep."""
        raise NotImplementedError

    def percent_to_sigma(self, percent: float) -> float:
        """Return the noise level when `percent` (0..1) of the trained timesteps are done."""
        raise NotImplementedError


def make_betas(beta_schedule: str, timesteps: int, start: float, end: float) -> Tensor:
    """Return the betas of training in float64.

    "linear" is linear in the square root (diffusers' scaled_linear), as in LDM.
    """
    if beta_schedule == "linear":
        return torch.linspace(start**0.5, end**0.5, timesteps, dtype=torch.float64) ** 2
    if beta_schedule == "sqrt_linear":
        return torch.linspace(start, end, timesteps, dtype=torch.float64)
    raise ValueError(f'beta schedule is "{beta_schedule}", expected "linear" or "sqrt_linear"')


def rescale_to_zero_snr(sigmas: Tensor) -> Tensor:
    """Return schedule without signal at its end: algorithm 1 of Lin et al. 2023, arXiv:2305.08891, in sigmas."""
    root = (1 / (sigmas**2 + 1)).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    alpha_bar = ((root - last) * (first / (first - last))) ** 2
    alpha_bar[-1] = ALPHA_BAR_AT_ZERO_SNR
    return ((1 - alpha_bar) / alpha_bar) ** 0.5


class ModelSamplingDiscrete(Schedule):
    """The 1000 noise levels of Stable Diffusion; timesteps between them are interpolated in log sigma.

    Reads `beta_schedule`, `linear_start`, `linear_end`, `timesteps`, `zsnr` of the sampling settings.
    """

    log_sigmas: Tensor

    def __init__(self, model_config: HasSamplingSettings | None = None, zsnr: bool | None = None) -> None:
        super().__init__()
        settings = model_config.sampling_settings if model_config is not None else {}
        betas = make_betas(
            settings.get("beta_schedule", "linear"),
            settings.get("timesteps", 1000),
            settings.get("linear_start", 0.00085),
            settings.get("linear_end", 0.012),
        )
        self.num_timesteps = len(betas)
        self.sigma_data = 1.0
        self.zsnr = settings.get("zsnr", False) if zsnr is None else zsnr
        alpha_bar = torch.cumprod(1.0 - betas, dim=0)
        sigmas = ((1 - alpha_bar) / alpha_bar) ** 0.5
        self.set_sigmas(rescale_to_zero_snr(sigmas) if self.zsnr else sigmas)

    def set_sigmas(self, sigmas: Tensor) -> None:
        """Replace the noise levels, (timesteps,) in rising order."""
        self.register_buffer("sigmas", sigmas.float())
        self.register_buffer("log_sigmas", sigmas.log().float())

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the index of the noise level nearest in log sigma."""
        distances = sigma.log().to(self.log_sigmas.device) - self.log_sigmas[:, None]
        return distances.abs().argmin(dim=0).view(sigma.shape).to(sigma.device)

    def sigma(self, timestep: Tensor) -> Tensor:
        """Return the noise level at a timestep, which need not be whole."""
        t = timestep.float().to(self.log_sigmas.device).clamp(0, len(self.sigmas) - 1)
        log_sigma = (1 - t.frac()) * self.log_sigmas[t.floor().long()] + t.frac() * self.log_sigmas[t.ceil().long()]
        return log_sigma.exp().to(timestep.device)

    def percent_to_sigma(self, percent: float) -> float:
        """Return the noise level when `percent` (0..1) of the trained timesteps are done."""
        if percent <= 0.0:
            return SIGMA_BEFORE_START
        if percent >= 1.0:
            return 0.0
        return self.sigma(torch.tensor((1.0 - percent) * 999.0)).item()


class ModelSamplingDiscreteDistilled(ModelSamplingDiscrete):
    """The 50 of 1000 noise levels that latent consistency models were distilled to."""

    ORIGINAL_TIMESTEPS = 50

    def __init__(self, model_config: HasSamplingSettings | None = None, zsnr: bool | None = None) -> None:
        super().__init__(model_config, zsnr)
        self.skip_steps = self.num_timesteps // self.ORIGINAL_TIMESTEPS
        chosen = [self.num_timesteps - 1 - self.skip_steps * place for place in range(self.ORIGINAL_TIMESTEPS)]
        self.set_sigmas(self.sigmas[chosen[::-1]])

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the timestep of training of the level nearest in log sigma."""
        return super().timestep(sigma) * self.skip_steps + self.skip_steps - 1

    def sigma(self, timestep: Tensor) -> Tensor:
        """Return the noise level at a timestep of training, which need not be whole."""
        return super().sigma((timestep.float() - (self.skip_steps - 1)) / self.skip_steps)


def time_snr_shift(shift: float, t: Any) -> Any:
    """Return flow time for a higher resolution (Esser et al. 2024, arXiv:2403.03206, eq. 23)."""
    return t if shift == 1.0 else shift * t / (1 + (shift - 1) * t)


class ModelSamplingDiscreteFlow(Schedule):
    """Rectified flow on 1000 times, shifted by a ratio. Reads `shift` and `multiplier` of the sampling settings."""

    def __init__(self, model_config: HasSamplingSettings | None = None) -> None:
        super().__init__()
        settings = model_config.sampling_settings if model_config is not None else {}
        self.set_parameters(shift=settings.get("shift", 1.0), multiplier=settings.get("multiplier", 1000))

    def set_parameters(self, shift: float = 1.0, timesteps: int = 1000, multiplier: float = 1000) -> None:
        """Replace the shift and the scale of timesteps."""
        self.shift = shift
        self.multiplier = multiplier
        times = torch.arange(1, timesteps + 1, 1) / timesteps
        self.register_buffer("sigmas", self.sigma(times * multiplier))

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return what the model is told at `sigma`."""
        return sigma * self.multiplier

    def sigma(self, timestep: Tensor) -> Tensor:
        """Return the noise level at a timestep."""
        return time_snr_shift(self.shift, timestep / self.multiplier)

    def percent_to_sigma(self, percent: float) -> float:
        """Return the noise level when `percent` (0..1) of the times are done."""
        if percent <= 0.0:
            return 1.0
        return 0.0 if percent >= 1.0 else time_snr_shift(self.shift, 1.0 - percent)


def flux_time_shift(mu: float, sigma: float, t: Any) -> Any:
    """Return flow time for a higher resolution by an exponential shift (black-forest-labs/flux, `sampling.py`)."""
    return math.exp(mu) / (math.exp(mu) + (1 / t - 1) ** sigma)


class ModelSamplingFlux(Schedule):
    """Rectified flow on 10000 times, shifted exponentially. Reads `shift` of the sampling settings."""

    def __init__(self, model_config: HasSamplingSettings | None = None) -> None:
        super().__init__()
        settings = model_config.sampling_settings if model_config is not None else {}
        self.set_parameters(shift=settings.get("shift", 1.15))

    def set_parameters(self, shift: float = 1.15, timesteps: int = 10000) -> None:
        """Replace the shift."""
        self.shift = shift
        self.register_buffer("sigmas", self.sigma(torch.arange(1, timesteps + 1, 1) / timesteps))

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return what the model is told at `sigma`: the flow time, 0..1."""
        return sigma

    def sigma(self, timestep: Tensor) -> Tensor:
        """Return the noise level at a flow time before the shift."""
        return flux_time_shift(self.shift, 1.0, timestep)

    def percent_to_sigma(self, percent: float) -> float:
        """Return the noise level when `percent` (0..1) of the times are done."""
        if percent <= 0.0:
            return 1.0
        return 0.0 if percent >= 1.0 else flux_time_shift(self.shift, 1.0, 1.0 - percent)
