"""Sampling under a noise mask (drop-in replacement for that part of `comfy.samplers`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..runtime.model_options import ModelOptions


class KSamplerX0Inpaint:
    """A guider as samplers call it. With a noise mask the kept part of the image is held at its own noise level."""

    def __init__(self, model: Any, sigmas: Tensor, latent_image: Tensor | None, noise: Tensor) -> None:
        self.inner_model = model
        self.sigmas = sigmas
        self.latent_image = latent_image
        self.noise = noise

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        denoise_mask: Tensor | None = None,
        model_options: ModelOptions | None = None,
        seed: int | None = None,
    ) -> Tensor:
        mask: Any = denoise_mask
        options = model_options or {}
        if mask is None or self.latent_image is None:
            return self.inner_model(x, sigma, model_options=options, seed=seed)
        if "denoise_mask_function" in options:
            extra = {"model": self.inner_model, "sigmas": self.sigmas}
            mask = options["denoise_mask_function"](sigma, mask, extra_options=extra)
        kept = self.inner_model.inner_model.scale_latent_inpaint(
            x=x, sigma=sigma, noise=self.noise, latent_image=self.latent_image, denoise_mask=mask
        )
        x = x * mask + kept * (1.0 - mask)
        denoised = self.inner_model(x, sigma, model_options=options, seed=seed)
        return denoised * mask + self.latent_image * (1.0 - mask)
