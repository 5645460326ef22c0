"""What a sampler works on: the denoiser in one run, as it is or in variance exploding coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...runtime.model_options import set_model_options_post_cfg_function
from ..model_sampling import CONST
from ..noise import BrownianTreeNoiseSampler, NoiseSampler, default_noise_sampler


class DenoisingRun:
    """One sampling run: the denoiser with its arguments, the seeded noise and the report of each step.

    Args:
        model: `f(x, sigma, **extra_args) -> x0` with x (B, ...) and sigma (B,).
        x: the noised latents at the first sigma.
        sigmas: falling noise levels (steps + 1,).
        extra_args: `seed`, `model_options`, ... for the model.
        callback: called once a step with `x`, `i`, `sigma`, `sigma_hat`, `denoised`.
        noise_sampler: `f(sigma, sigma_next) -> noise`; seeded independent noise by default.
    """

    def __init__(
        self,
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable[[dict[str, Any]], None] | None,
        noise_sampler: NoiseSampler | None,
    ) -> None:
        self.model = model
        self.x = x
        self.sigmas = sigmas
        self.extra_args = extra_args
        self.callback = callback
        self._noise_sampler = noise_sampler

    @property
    def model_sampling(self) -> Any:
        """The model's sampling in this run."""
        return self.model.inner_model.model_patcher.get_model_object("model_sampling")

    @property
    def flow(self) -> bool:
        """Whether the model is a rectified flow: x = (1 - sigma) x0 + sigma noise."""
        return isinstance(self.model_sampling, CONST)

    def steps(self, sigmas: Tensor | None = None) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (index, sigma, next sigma) of each step."""
        sigmas = self.sigmas if sigmas is None else sigmas
        for i in range(len(sigmas) - 1):
            yield i, sigmas[i], sigmas[i + 1]

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return x0 as the model sees it."""
        return self.model(x, sigma * x.new_ones(x.shape[0]), **self.extra_args)

    def report(self, i: int, x: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        """Tell the callback about a step."""
        if self.callback is not None:
            self.callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})

    def denoise_and_report(self, i: int, x: Tensor, sigma: Tensor) -> Tensor:
        """Return x0 at the start of a step, and report it."""
        denoised = self.denoise(x, sigma)
        self.report(i, x, sigma, denoised)
        return denoised

    def noise(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """Return standard normal noise for the way between two noise levels."""
        if self._noise_sampler is None:
            self._noise_sampler = default_noise_sampler(self.x, self.extra_args.get("seed"))
        return self._noise_sampler(sigma, sigma_next)

    def use_brownian_noise(self, cpu: bool = True) -> None:
        """Take the noise from a Brownian path over sigma, unless a noise sampler was given."""
        if self._noise_sampler is None:
            positive = self.sigmas[self.sigmas > 0]
            seed = self.extra_args.get("seed")
            self._noise_sampler = BrownianTreeNoiseSampler(self.x, positive.min(), positive.max(), seed, cpu)

    def keep_uncond(self) -> Callable[[], Tensor]:
        """Ask for the negative prediction too; return a function that gives the latest one (CFG++)."""
        latest: list[Tensor] = []

        def keep(args: dict[str, Any]) -> Tensor:
            latest[:] = [args["uncond_denoised"]]
            return args["denoised"]

        options = dict(self.extra_args.get("model_options", {}))
        options = set_model_options_post_cfg_function(options, keep, disable_cfg1_optimization=True)
        self.extra_args = {**self.extra_args, "model_options": options}
        return lambda: latest[0]


class VECoordinates:
    """The run seen as variance exploding: y = x / alpha at the noise level rho = sigma / alpha.

    In them an x = alpha x0 + sigma noise is y = x0 + rho noise, whether the model is a flow (alpha = 1 - sigma) or not
    (alpha = 1), and log(1 / rho) is the half log SNR in which DPM-Solver++ and its relatives are written.
    """

    def __init__(self, run: DenoisingRun, offset: float = 1e-4) -> None:
        self.run = run
        self.flow = run.flow
        self.sigmas = run.sigmas
        if self.flow and self.sigmas[0] >= 1:
            # At sigma 1 there is no signal and rho is infinite.
            self.sigmas = self.sigmas.clone()
            self.sigmas[0] = run.model_sampling.percent_to_sigma(offset)

    def alpha(self, sigma: Any) -> Any:
        """Return the signal in x."""
        return 1 - sigma if self.flow else 1.0

    def rho(self, sigma: Any) -> Any:
        """Return noise per signal."""
        return self.half_log_snr(sigma).neg().exp() if self.flow else sigma

    def half_log_snr(self, sigma: Tensor) -> Tensor:
        """Return log(alpha / sigma)."""
        return sigma.logit().neg() if self.flow else sigma.log().neg()

    def sigma_at(self, half_log_snr: Tensor) -> Tensor:
        """Return the inverse of `half_log_snr`."""
        return half_log_snr.neg().sigmoid() if self.flow else half_log_snr.neg().exp()

    def between(self, sigma: Tensor, sigma_next: Tensor, r: float) -> Tensor:
        """Return the noise level at a fraction r of the way in half log SNR."""
        return self.sigma_at(torch.lerp(self.half_log_snr(sigma), self.half_log_snr(sigma_next), r))

    def steps(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Return (index, sigma, next sigma) of each step."""
        return self.run.steps(self.sigmas)

    def start(self, x: Tensor) -> Tensor:
        """Return y for the first latents."""
        return x / self.alpha(self.sigmas[0])

    def denoise_and_report(self, i: int, y: Tensor, sigma: Tensor) -> Tensor:
        """Return x0 at the start of a step, and report it."""
        return self.run.denoise_and_report(i, y * self.alpha(sigma), sigma)

    def denoise(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Return x0 as the model sees it."""
        return self.run.denoise(y * self.alpha(sigma), sigma)

    def finish(self, y: Tensor) -> Tensor:
        """Return the last latents."""
        return y * self.alpha(self.sigmas[-1])
