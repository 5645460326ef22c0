"""KSampler: a sampler, a schedule and a number of steps (drop-in replacement for `comfy.samplers.KSampler`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..runtime.patcher import ModelPatcher
from .conds import Conditioning
from .guiders import CFGGuider
from .samplers import SAMPLER_NAMES, Callback, Sampler, sampler_object
from .schedules import SCHEDULER_NAMES, calculate_sigmas

DISCARD_PENULTIMATE_SIGMA_SAMPLERS = {"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"}
"""Their last step above zero does harm; their schedules are made one longer and lose it."""


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
    """Run `CFGGuider.sample` with a positive and a negative conditioning; latents on the CPU, float32."""
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
        """Return the noise levels of all steps (steps + 1,)."""
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
        """Sample the steps from `start_step` up to `last_step`; see `CFGGuider.sample`.

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
