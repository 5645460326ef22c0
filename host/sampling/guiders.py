"""The run around a sampler (drop-in replacement for `CFGGuider` and `comfy.sampler_helpers`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...patching.calls import LESS_MEMORY
from ..runtime.fitting import fitting
from ..runtime.model_options import ModelOptions, create_model_options_clone
from ..runtime.patcher import ModelPatcher
from ..runtime.patcher_extension import WrappersMP, merge_nested_dicts, wrapped
from .conds import Cond, Conditioning, attached_controls, convert_cond, process_conds, repeat_to_batch_size
from .guidance import sampling_function
from .samplers import Callback, Sampler


def prepare_sampling(
    model: ModelPatcher,
    noise_shape: torch.Size,
    conds: dict[str, list[Cond]],
    model_options: ModelOptions | None = None,
    force_full_load: bool = False,
    force_offload: bool = False,
) -> tuple[Any, dict[str, list[Cond]], list[ModelPatcher]]:
    """Load and patch the model; return it, the conditionings and other loaded models."""
    to = (model_options or {}).get("transformer_options", {})
    prepare = wrapped(WrappersMP.PREPARE_SAMPLING, to, _prepare_sampling)
    return prepare(
        model,
        noise_shape,
        conds,
        model_options=model_options,
        force_full_load=force_full_load,
        force_offload=force_offload,
    )


def _prepare_sampling(
    model: ModelPatcher, noise_shape: torch.Size, conds: dict[str, list[Cond]], **kwargs: Any
) -> tuple[Any, dict[str, list[Cond]], list[ModelPatcher]]:
    others = [patcher for control in attached_controls(conds) for patcher in control.get_models()]
    loaded: list[ModelPatcher] = []
    try:
        for patcher in {id(patcher): patcher for patcher in others}.values():
            patcher.patch_model(model.load_device)
            loaded.append(patcher)
        return model.patch_model(model.load_device), conds, loaded
    except BaseException:
        unload(loaded)
        raise


def unload(loaded: list[ModelPatcher]) -> None:
    """Take patches off models and put them where they rest."""
    for patcher in loaded:
        patcher.unpatch_model(patcher.offload_device)


def prepare_mask(noise_mask: Tensor, shape: torch.Size, device: torch.device) -> Tensor:
    """Return a mask (B or 1, 1, h, w) or (h, w), 1 where the image changes, in the latents' shape (B, C, H, W)."""
    mask = noise_mask.reshape(-1, 1, *noise_mask.shape[-2:])
    mask = F.interpolate(mask, size=shape[2:], mode="bilinear")
    return repeat_to_batch_size(mask.repeat(1, shape[1], 1, 1), shape[0]).to(device, torch.float32)


class CFGGuider:
    """Samples a model under classifier-free guidance of a positive and a negative conditioning.

    Subclasses override `set_conds`, `predict_noise`. During a run `conds` holds the prepared conditionings by name and
    `inner_model` the loaded `BaseModel`.
    """

    inner_model: Any
    conds: dict[str, list[Cond]]

    def __init__(self, model_patcher: ModelPatcher) -> None:
        self.model_patcher = model_patcher
        self.model_options: ModelOptions = model_patcher.model_options
        self.original_conds: dict[str, list[Cond]] = {}
        self.cfg = 1.0

    def set_conds(self, positive: Conditioning, negative: Conditioning) -> None:
        """Set both prompts."""
        self.inner_set_conds({"positive": positive, "negative": negative})

    def set_cfg(self, cfg: float) -> None:
        """Set the guidance scale; 1 is none."""
        self.cfg = cfg

    def inner_set_conds(self, conds: dict[str, Conditioning]) -> None:
        """Set conditionings by name."""
        for name, conditioning in conds.items():
            self.original_conds[name] = convert_cond(conditioning)

    def __call__(
        self, x: Tensor, timestep: Tensor, model_options: ModelOptions | None = None, seed: int | None = None
    ) -> Tensor:
        options = self.model_options["transformer_options"]
        predict = wrapped(WrappersMP.PREDICT_NOISE, options, self.predict_noise, self)
        return predict(x, timestep, model_options or {}, seed)

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: ModelOptions | None = None, seed: int | None = None
    ) -> Tensor:
        """Return x0 (B, C, H, W) of latents x at sigma `timestep` (B,)."""
        negative, positive = self.conds.get("negative"), self.conds.get("positive")
        return sampling_function(self.inner_model, x, timestep, negative, positive, self.cfg, model_options or {}, seed)

    def inner_sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        device: torch.device,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None,
        callback: Callback | None,
        disable_pbar: bool,
        seed: int | None,
        latent_shapes: list[torch.Size] | None = None,
    ) -> Tensor:
        """Sample with the model loaded."""
        # An empty latent means no image, not the colour that zeros would be.
        if torch.count_nonzero(latent_image) > 0:
            latent_image = self.inner_model.process_latent_in(latent_image)
        self.conds = process_conds(
            self.inner_model,
            noise,
            self.conds,
            device,
            latent_image=latent_image,
            denoise_mask=denoise_mask,
            seed=seed,
        )
        options = create_model_options_clone(self.model_options)
        options.setdefault("transformer_options", {})["sample_sigmas"] = sigmas
        extra_args = {"model_options": options, "seed": seed}
        run = wrapped(WrappersMP.SAMPLER_SAMPLE, options["transformer_options"], sampler.sample, sampler)
        samples = run(self, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)
        return self.inner_model.process_latent_out(samples.to(torch.float32))

    def outer_sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Callback | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
        latent_shapes: list[torch.Size] | None = None,
    ) -> Tensor:
        """Load and patch the model, sample, and take the patches off again whatever happens."""
        device = self.model_patcher.load_device
        loaded: list[ModelPatcher] = []
        try:
            self.inner_model, self.conds, loaded = prepare_sampling(
                self.model_patcher, noise.shape, self.conds, self.model_options
            )
            noise, latent_image = (t.to(device, torch.float32) for t in (noise, latent_image))
            # A copy: some samplers change the last sigma.
            sigmas = sigmas.to(device, copy=True)
            latent_pixels = self.inner_model.latent_format.spacial_downscale_ratio
            try:
                self.model_patcher.pre_run()
                advice = self.model_options.get("transformer_options", {}).get(LESS_MEMORY, "")
                with fitting(device, noise.shape, latent_pixels, advice):
                    return self.inner_sample(
                        noise,
                        latent_image,
                        device,
                        sampler,
                        sigmas,
                        denoise_mask,
                        callback,
                        disable_pbar,
                        seed,
                        latent_shapes=latent_shapes,
                    )
            finally:
                self.model_patcher.cleanup()
                del self.inner_model
        finally:
            unload([self.model_patcher, *loaded])
            for control in attached_controls(self.conds):
                control.cleanup()

    def sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Callback | None = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """Sample latents.

        Args:
            noise: standard normal (B, C, H, W).
            latent_image: the image to start from, zeros for none (B, C, H, W), in the VAE's scale.
            sigmas: falling noise levels (steps + 1,); empty for no step.
            denoise_mask: 1 where the image changes (B or 1, 1, h, w).
            callback: `f(step, x0, x, total_steps)`.
            seed: of the sampler's own noise.

        Returns:
            Latents (B, C, H, W) in the VAE's scale.
        """
        if sigmas.shape[-1] == 0:
            return latent_image
        if denoise_mask is not None:
            denoise_mask = prepare_mask(denoise_mask, latent_image.shape, self.model_patcher.load_device)
        self.conds = {name: [dict(cond) for cond in conds] for name, conds in self.original_conds.items()}
        own_options, self.model_options = self.model_options, create_model_options_clone(self.model_options)
        try:
            to = self.model_options["transformer_options"]
            for kind in ("wrappers", "callbacks"):
                to[kind] = merge_nested_dicts(to.get(kind, {}), getattr(self.model_patcher, kind))
            run = wrapped(WrappersMP.OUTER_SAMPLE, to, self.outer_sample, self)
            with torch.no_grad():
                return run(
                    noise,
                    latent_image,
                    sampler,
                    sigmas,
                    denoise_mask,
                    callback,
                    disable_pbar,
                    seed,
                    latent_shapes=[latent_image.shape],
                )
        finally:
            self.model_options = own_options
            del self.conds
