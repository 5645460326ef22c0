"""Samplers by ComfyUI's names (drop-in replacement for the samplers of `comfy.samplers`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .inpainting import KSamplerX0Inpaint
from .k_diffusion import SAMPLERS

Callback = Callable[[int, Tensor, Tensor, int], None]

_KSAMPLER_NAMES = """
    euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 exp_heun_2_x0 exp_heun_2_x0_sde dpm_2
    dpm_2_ancestral lms dpm_fast dpm_adaptive dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu
    dpmpp_2m dpmpp_2m_cfg_pp dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde
    dpmpp_3m_sde_gpu ddpm lcm ipndm ipndm_v deis res_multistep res_multistep_cfg_pp res_multistep_ancestral
    res_multistep_ancestral_cfg_pp gradient_estimation gradient_estimation_cfg_pp er_sde seeds_2 seeds_3 sa_solver
    sa_solver_pece
"""
"""In ComfyUI's order, which is the order of its menus."""

SAMPLER_NAMES = [*_KSAMPLER_NAMES.split(), "ddim", "uni_pc", "uni_pc_bh2"]


class Sampler:
    """Turns noise into latents with a guider."""

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callback | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Return the sampled latents (B, C, H, W)."""
        raise NotImplementedError

    def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
        """Return whether the run starts at the model's highest noise level."""
        max_sigma = float(model_wrap.inner_model.model_sampling.sigma_max)
        sigma = float(sigmas[0])
        return math.isclose(max_sigma, sigma, rel_tol=1e-05) or sigma > max_sigma


class KSAMPLER(Sampler):
    """A sampler made of a k-diffusion function.

    Args:
        sampler_function: `f(model, x, sigmas, extra_args=, callback=, disable=, **extra_options)`.
        extra_options: its options.
        inpaint_options: `random`: the kept part of an inpainted image gets noise of its own.
    """

    def __init__(
        self,
        sampler_function: Callable[..., Tensor],
        extra_options: dict[str, Any] | None = None,
        inpaint_options: dict[str, Any] | None = None,
    ) -> None:
        self.sampler_function = sampler_function
        self.extra_options = extra_options or {}
        self.inpaint_options = inpaint_options or {}

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callback | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Return the sampled latents (B, C, H, W)."""
        model_sampling = model_wrap.inner_model.model_sampling
        total = len(sigmas) - 1
        extra_args["denoise_mask"] = denoise_mask
        model_k = KSamplerX0Inpaint(model_wrap, sigmas, latent_image, self._inpaint_noise(noise, extra_args))
        max_denoise = self.max_denoise(model_wrap, sigmas)
        x = model_sampling.noise_scaling(sigmas[0], noise, latent_image, max_denoise)

        finite = _Finite(total)

        def report(step: dict[str, Any]) -> None:
            finite.look(step["i"], step["denoised"])
            if callback is not None:
                callback(step["i"], step["denoised"], step["x"], total)

        samples = self.sampler_function(
            model_k, x, sigmas, extra_args=extra_args, callback=report, disable=disable_pbar, **self.extra_options
        )
        finite.look(total - 1, samples)
        finite.check()
        return model_sampling.inverse_noise_scaling(sigmas[-1], samples)

    def _inpaint_noise(self, noise: Tensor, extra_args: dict[str, Any]) -> Tensor:
        if not self.inpaint_options.get("random", False):
            return noise
        generator = torch.manual_seed(extra_args.get("seed", 41) + 1)
        return torch.randn(noise.shape, generator=generator).to(noise)


class _Finite:
    """Looks for the first step whose latents are not finite; on a GPU without waiting for it before the end."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.first: Tensor | None = None

    def look(self, step: int, latents: Tensor) -> None:
        """Look at the latents of a step (B, C, H, W).

        Raises:
            ValueError: on a CPU, they are not finite.
        """
        here = torch.where(latents.isfinite().all(), self.total, min(step, self.total - 1))
        self.first = here if self.first is None else torch.minimum(self.first.to(here), here)
        if latents.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raise ValueError where a step was not finite."""
        if self.first is not None and (first := int(self.first)) < self.total:
            raise ValueError(
                f"the model gave values that are not finite (NaN) at step {first + 1} of {self.total}; "
                "use another sampler, a lower cfg, or --dtype fp32"
            )


def sampler_object(name: str) -> KSAMPLER:
    """Return a sampler by ComfyUI's name.

    Raises:
        ValueError: there is no such sampler.
    """
    if name == "ddim":
        return KSAMPLER(SAMPLERS["euler"], inpaint_options={"random": True})
    if name not in SAMPLERS:
        raise ValueError(f'sampler is "{name}", expected one of {", ".join(SAMPLER_NAMES)}')
    return KSAMPLER(SAMPLERS[name])
