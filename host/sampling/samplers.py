"""Samplers by ComfyUI's names, with steps, denoise and noise mask (stands for `comfy.samplers`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..runtime.model_options import ModelOptions
from ..runtime.patcher import ModelPatcher
from .cond_batch import calc_cond_batch
from .conds import Conditioning
from .guiders import Callback, CFGGuider, Sampler, cfg_function, prepare_sampling, sampling_function
from .k_diffusion import SAMPLERS
from .schedules import SCHEDULER_NAMES, calculate_sigmas

__all__ = [
    "KSAMPLER",
    "SAMPLER_NAMES",
    "SCHEDULER_NAMES",
    "CFGGuider",
    "KSampler",
    "Sampler",
    "calc_cond_batch",
    "calculate_sigmas",
    "cfg_function",
    "prepare_sampling",
    "sample",
    "sampler_object",
    "sampling_function",
]

# In ComfyUI's order, which is the order of its menus.
_KSAMPLER_NAMES = """
    euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 exp_heun_2_x0 exp_heun_2_x0_sde dpm_2
    dpm_2_ancestral lms dpm_fast dpm_adaptive dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu
    dpmpp_2m dpmpp_2m_cfg_pp dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde
    dpmpp_3m_sde_gpu ddpm lcm ipndm ipndm_v deis res_multistep res_multistep_cfg_pp res_multistep_ancestral
    res_multistep_ancestral_cfg_pp gradient_estimation gradient_estimation_cfg_pp er_sde seeds_2 seeds_3 sa_solver
    sa_solver_pece
"""
SAMPLER_NAMES = [*_KSAMPLER_NAMES.split(), "ddim", "uni_pc", "uni_pc_bh2"]
# Their last step above zero does harm; their schedules are made one longer and lose it.
DISCARD_PENULTIMATE_SIGMA_SAMPLERS = {"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"}


class KSamplerX0Inpaint:
    """A guider as samplers call it. With a noise mask the kept part of the image is held at its own noise level."""

    def __init__(self, model: CFGGuider, sigmas: Tensor, latent_image: Tensor | None, noise: Tensor) -> None:
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
        model_wrap: CFGGuider,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callback | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """The sampled latents (B, C, H, W)."""
        model_sampling = model_wrap.inner_model.model_sampling
        total = len(sigmas) - 1
        extra_args["denoise_mask"] = denoise_mask
        model_k = KSamplerX0Inpaint(model_wrap, sigmas, latent_image, self._inpaint_noise(noise, extra_args))
        max_denoise = self.max_denoise(model_wrap, sigmas)
        x = model_sampling.noise_scaling(sigmas[0], noise, latent_image, max_denoise)

        def report(step: dict[str, Any]) -> None:
            if callback is not None:
                callback(step["i"], step["denoised"], step["x"], total)

        samples = self.sampler_function(
            model_k, x, sigmas, extra_args=extra_args, callback=report, disable=disable_pbar, **self.extra_options
        )
        return model_sampling.inverse_noise_scaling(sigmas[-1], samples)

    def _inpaint_noise(self, noise: Tensor, extra_args: dict[str, Any]) -> Tensor:
        if not self.inpaint_options.get("random", False):
            return noise
        generator = torch.manual_seed(extra_args.get("seed", 41) + 1)
        return torch.randn(noise.shape, generator=generator).to(noise)


def sampler_object(name: str) -> KSAMPLER:
    """A sampler by ComfyUI's name.

    Raises:
        ValueError: there is no such sampler.
    """
    if name == "ddim":
        return KSAMPLER(SAMPLERS["euler"], inpaint_options={"random": True})
    if name not in SAMPLERS:
        raise ValueError(f'sampler is "{name}", expected one of {", ".join(SAMPLER_NAMES)}')
    return KSAMPLER(SAMPLERS[name])


def sample(
    model: ModelPatcher,
    noise: Tensor,
    positive: Conditioning,
    negative: Conditioning,
    cfg: float,
    sampler: Sampler,
    sigmas: Tensor,
    latent_image: Tensor,
    denoise_mask: Tensor | None = None,
    callback: Callback | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
) -> Tensor:
    """`CFGGuider.sample` with a positive and a negative conditioning; latents on the CPU, float32."""
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    samples = guider.sample(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)
    return samples.to("cpu", torch.float32)


class KSampler:
    """A sampler, a schedule and a number of steps, as the KSampler nodes take them.

    Args:
        sampler: one of `SAMPLER_NAMES`.
        scheduler: one of `SCHEDULER_NAMES`.
        denoise: 0..1; below 1 only the last `steps` of `steps / denoise` are run.

    Raises:
        ValueError: there is no such sampler or schedule.
    """

    SCHEDULERS = SCHEDULER_NAMES
    SAMPLERS = SAMPLER_NAMES

    def __init__(
        self, model: ModelPatcher, steps: int, sampler: str, scheduler: str, denoise: float | None = None
    ) -> None:
        self.model = model
        self.sampler = sampler
        self.scheduler = scheduler
        self.sigmas = self._sigmas(steps, denoise)

    def _sigmas(self, steps: int, denoise: float | None) -> Tensor:
        if denoise is None or denoise > 0.9999:
            return self.calculate_sigmas(steps)
        if denoise <= 0.0:
            return torch.empty(0)
        return self.calculate_sigmas(int(steps / denoise))[-(steps + 1) :]

    def calculate_sigmas(self, steps: int) -> Tensor:
        """The noise levels of all steps (steps + 1,)."""
        model_sampling = self.model.get_model_object("model_sampling")
        if self.sampler not in DISCARD_PENULTIMATE_SIGMA_SAMPLERS:
            return calculate_sigmas(model_sampling, self.scheduler, steps)
        sigmas = calculate_sigmas(model_sampling, self.scheduler, steps + 1)
        return torch.cat([sigmas[:-2], sigmas[-1:]])

    def sample(
        self,
        noise: Tensor,
        positive: Conditioning,
        negative: Conditioning,
        cfg: float,
        latent_image: Tensor,
        start_step: int | None = None,
        last_step: int | None = None,
        force_full_denoise: bool = False,
        denoise_mask: Tensor | None = None,
        callback: Callback | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """Samples the steps from `start_step` up to `last_step`; see `CFGGuider.sample`.

        Args:
            force_full_denoise: the last step removes all noise that is left.
        """
        sigmas = self.sigmas
        if last_step is not None and last_step < len(sigmas) - 1:
            sigmas = sigmas[: last_step + 1].clone()
            if force_full_denoise:
                sigmas[-1] = 0
        if start_step is not None:
            if start_step >= len(sigmas) - 1:
                return latent_image
            sigmas = sigmas[start_step:]
        return sample(
            self.model,
            noise,
            positive,
            negative,
            cfg,
            sampler_object(self.sampler),
            sigmas,
            latent_image,
            denoise_mask,
            callback,
            disable_pbar,
            seed,
        )
