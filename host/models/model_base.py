"""A denoiser with its sampling, as the samplers see it (drop-in replacement for `comfy.model_base`).

`BaseModel` turns a diffusers denoiser, which predicts noise, v or a velocity from scaled inputs, into a function
`apply_model(x, sigma, conditionings) -> x0`. A subclass per family names the conditionings and calls the denoiser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..runtime.patcher_extension import WrappersMP, wrapped
from ..sampling.conds import CONDConstant, CONDCrossAttn, CONDList, CONDNoiseShape, CONDRegular
from . import latent_formats
from .attention_hooks import patched_attention, unknown_patches
from .flux_transformer import FluxCalls, HookedAttention, forward_flux
from .flux_transformer import unknown_patches as unknown_flux_patches
from .image_conds import edit_channels, flux_channels, inpainting_channels
from .model_types import ModelType, model_sampling
from .patches import PATCH, patchify, unpatchify, with_references
from .references import spread_mask

Conds = dict[str, CONDRegular]
TEXT_WIDTHS = ("joint_attention_dim", "cross_attention_dim", "cap_feat_dim")
"""What diffusers calls the width of a text embedding."""


@dataclass
class ModelConfig:
    """What nodes may read of a model: `model.model.model_config`."""

    latent_format: latent_formats.LatentFormat
    sampling_settings: dict[str, Any] = field(default_factory=dict)
    unet_config: dict[str, Any] = field(default_factory=dict)


class BaseModel(torch.nn.Module):
    """A diffusers denoiser that predicts x0.

    Args:
        diffusion_model: the diffusers module; its state dict keys get the prefix `diffusion_model.`.
        model_type: what it predicts; the family's usual type by default.
        sampling_settings: of the schedule, see `model_sampling`.
        latent_format: the family's by default.
    """

    default_type = ModelType.EPS
    default_latent_format: type[latent_formats.LatentFormat] = latent_formats.SD15
    default_ref_method = ""
    """How reference images are seen where the conditioning does not say it."""

    def __init__(
        self,
        diffusion_model: torch.nn.Module,
        model_type: ModelType | None = None,
        sampling_settings: dict[str, Any] | None = None,
        latent_format: latent_formats.LatentFormat | None = None,
    ) -> None:
        super().__init__()
        self.latent_format = latent_format or self.default_latent_format()
        self.diffusion_model = diffusion_model.requires_grad_(False).eval()
        unet_config = dict(getattr(diffusion_model, "config", {}))
        self.model_config = ModelConfig(self.latent_format, dict(sampling_settings or {}), unet_config)
        self.model_type = model_type or self.default_type
        self.model_sampling = model_sampling(self.model_config, self.model_type)
        self.current_patcher: Any = None

    def get_dtype(self) -> torch.dtype:
        """Return the dtype in which the denoiser computes."""
        return next(self.diffusion_model.parameters()).dtype

    def get_dtype_inference(self) -> torch.dtype:
        """Return the dtype in which the denoiser computes."""
        return self.get_dtype()

    def process_latent_in(self, latent: Tensor) -> Tensor:
        """Scale the VAE's latents to the denoiser's."""
        return self.latent_format.process_in(latent)

    def process_latent_out(self, latent: Tensor) -> Tensor:
        """Scale the denoiser's latents to the VAE's."""
        return self.latent_format.process_out(latent)

    def scale_latent_inpaint(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, **kwargs: Any) -> Tensor:
        """Return the kept part of an inpainted image, noised to `sigma` (B,)."""
        sigma = sigma.reshape([sigma.shape[0]] + [1] * (noise.ndim - 1))
        return self.model_sampling.noise_scaling(sigma, noise, latent_image)

    def encode_adm(self, **kwargs: Any) -> Tensor | None:
        """Return the pooled conditioning (B, D) of a conditioning's values, if the family has one."""
        return None

    def concat_cond(self, **kwargs: Any) -> Tensor | None:
        """Return more channels of the denoiser's input (B, C', H, W) for a conditioning's values, if it has such."""
        return None

    def extra_conds(self, **kwargs: Any) -> Conds:
        """Return the denoiser's arguments for one conditioning.

        Args:
            kwargs: the values of the conditioning (`cross_attn`, `pooled_output`, `guidance`, ...), and `noise`,
                `width`, `height` (px), `device`, `prompt_type` of the run.
        """
        out: Conds = {}
        beside = self.concat_cond(**kwargs)
        if beside is not None:
            out["c_concat"] = CONDNoiseShape(beside)
        adm = self.encode_adm(**kwargs)
        if adm is not None:
            out["y"] = CONDRegular(adm)
        if kwargs.get("cross_attn") is not None:
            self._check_text(kwargs["cross_attn"])
            out["c_crossattn"] = CONDCrossAttn(kwargs["cross_attn"])
        return out

    def _check_text(self, text: Tensor) -> None:
        """Raise ValueError for a text embedding (B, L, D) of another family's text encoder."""
        config: Any = getattr(self.diffusion_model, "config", None) or {}
        width = next((config[name] for name in TEXT_WIDTHS if config.get(name)), None)
        if isinstance(width, int) and text.shape[-1] != width:
            raise ValueError(
                f"the prompt has {text.shape[-1]} numbers a token, expected {width}; its text encoder is of another "
                "model family, use the model's own"
            )

    def apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Predict the image.

        Args:
            x: latents (B, C, H, W) at noise level `t`.
            t: sigma of each sample (B,).
            c_concat: more channels of the denoiser's input (B, C', H, W).
            c_crossattn: text embedding (B, L, D).
            transformer_options: hooks, and `cond_or_uncond`, `sigmas`, `sample_sigmas`, `uuids`.
            kwargs: the other conditionings of `extra_conds`.

        Returns:
            x0 (B, C, H, W), float32.
        """
        options = transformer_options if transformer_options is not None else {}
        predict = wrapped(WrappersMP.APPLY_MODEL, options, self._apply_model, self)
        return predict(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        dtype = self.get_dtype_inference()

        def cast(value: Any) -> Any:
            if isinstance(value, list):
                return [cast(each) for each in value]
            if not isinstance(value, Tensor):
                return value
            return value.to(x.device, dtype if value.is_floating_point() else None)

        xc = self.model_sampling.calculate_input(t, x)
        if c_concat is not None:
            xc = torch.cat([xc, c_concat.to(xc)], dim=1)
        timestep = self.model_sampling.timestep(t).float()
        conds = {name: cast(value) for name, value in kwargs.items()}
        if control is not None:
            control = {place: [cast(part) for part in parts] for place, parts in control.items()}
        output = self.denoise(
            xc.to(dtype), timestep, cast(c_crossattn), control, dict(transformer_options or {}), **conds
        )
        return self.model_sampling.calculate_denoised(t, output.float(), x)

    def denoise(
        self, x: Tensor, timestep: Tensor, context: Any, control: Any, options: dict[str, Any], **conds: Any
    ) -> Tensor:
        """Call the denoiser inside its DIFFUSION_MODEL wrappers."""
        raise NotImplementedError

    def _unknown_patches(self, options: dict[str, Any]) -> list[str]:
        """Return the hooks inside blocks that this family does not call."""
        return sorted({*options.get("patches", {}), *options.get("patches_replace", {})})

    def _inside_wrappers(self, forward: Callable[..., Tensor], options: dict[str, Any]) -> Callable[..., Tensor]:
        """Return the one place where hooks of `transformer_options` that reach into the denoiser begin."""
        if names := self._unknown_patches(options):
            raise NotImplementedError(
                f"the model has patches inside its blocks ({', '.join(names)}), which need ComfyUI"
            )
        return wrapped(WrappersMP.DIFFUSION_MODEL, options, forward, self.diffusion_model)


class SD15(BaseModel):
    """Stable Diffusion 1: a diffusers UNet2DConditionModel.

    One of 9 channels inpaints, one of 8 edits.
    """

    def concat_cond(self, **kwargs: Any) -> Tensor | None:
        """Return the mask and the masked image, or the image to edit."""
        config = getattr(self.diffusion_model, "config", None)
        more = getattr(config, "in_channels", 0) - self.latent_format.latent_channels
        if more == self.latent_format.latent_channels:
            return edit_channels(**kwargs)
        return inpainting_channels(self.process_latent_in, **kwargs) if more > 0 else None

    def _unknown_patches(self, options: dict[str, Any]) -> list[str]:
        return unknown_patches(options)

    def denoise(
        self, x: Tensor, timestep: Tensor, context: Any, control: Any, options: dict[str, Any], **conds: Any
    ) -> Tensor:
        """Call the UNet inside its DIFFUSION_MODEL wrappers."""
        y = conds.pop("y", None)
        return self._inside_wrappers(self.forward_unet, options)(x, timestep, context, y, control, options, **conds)

    def forward_unet(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **conds: Any,
    ) -> Tensor:
        """Call the UNet once: x (B, C, H, W), timesteps (B,), context (B, L, D), y (B, P) -> (B, C, H, W)."""
        more = unet_residuals(control)
        if "time_ids" in conds:
            more["added_cond_kwargs"] = {"text_embeds": y, "time_ids": conds["time_ids"]}
        elif y is not None:
            more["class_labels"] = y
        with patched_attention(self.diffusion_model, transformer_options or {}, x):
            return self.diffusion_model(x, timesteps, context, **more, return_dict=False)[0]


class SDXL(SD15):
    """Stable Diffusion XL: a diffusers UNet2DConditionModel that also takes a pooled text and sizes.

    `y` is the pooled text alone; the six sizes are the conditioning `time_ids`, which the UNet embeds itself.
    """

    default_latent_format = latent_formats.SDXL

    def encode_adm(self, **kwargs: Any) -> Tensor:
        """Return the pooled text (B, 1280)."""
        if kwargs.get("pooled_output") is None:
            raise ValueError("SDXL needs a conditioning with a pooled text; encode the prompt with SDXL's own CLIP")
        return kwargs["pooled_output"]

    def extra_conds(self, **kwargs: Any) -> Conds:
        """Add `time_ids` (1, 6): size, crop and target size of training, height before width."""
        out = super().extra_conds(**kwargs)
        width, height = kwargs.get("width", 768), kwargs.get("height", 768)
        sizes = [height, width, kwargs.get("crop_h", 0), kwargs.get("crop_w", 0)]
        sizes += [kwargs.get("target_height", height), kwargs.get("target_width", width)]
        out["time_ids"] = CONDRegular(torch.tensor([sizes]))
        return out


class Flux(BaseModel):
    """Flux.1: a diffusers FluxTransformer2DModel.

    Flux.1 schnell is `Flux(transformer, ModelType.FLOW, {"shift": 1.0, "multiplier": 1.0})`.
    """

    default_type = ModelType.FLUX
    default_latent_format = latent_formats.Flux
    calls = FluxCalls()
    default_ref_method = "offset"

    def __init__(self, diffusion_model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(diffusion_model, *args, **kwargs)
        diffusion_model.set_attn_processor(HookedAttention())

    def _unknown_patches(self, options: dict[str, Any]) -> list[str]:
        return unknown_flux_patches(options)

    def concat_cond(self, **kwargs: Any) -> Tensor | None:
        """Return the image that Depth and Canny see, or the image and mask that Fill sees."""
        # Of the patched weight: control LoRAs make it see more channels.
        embedder: Any = self.diffusion_model.x_embedder
        channels = embedder.weight.shape[1] // PATCH**2
        if channels <= self.latent_format.latent_channels:
            return None
        return flux_channels(self.process_latent_in, channels, **kwargs)

    def encode_adm(self, **kwargs: Any) -> Tensor | None:
        """Return the pooled text (B, 768)."""
        return kwargs.get("pooled_output")

    def extra_conds(self, **kwargs: Any) -> Conds:
        """Add `guidance` (1,) of distillation, 3.5 by default."""
        out = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            out["c_crossattn"] = CONDRegular(kwargs["cross_attn"])
        mask = kwargs.get("attention_mask")
        if mask is not None and kwargs.get("attention_mask_img_shape") == (1, 1):
            height, width = kwargs["noise"].shape[2:]
            out["attention_mask"] = CONDRegular(spread_mask(mask, -(-height // PATCH) * -(-width // PATCH)))
        if kwargs.get("reference_latents") is not None:
            out["ref_latents"] = CONDList([self.process_latent_in(each) for each in kwargs["reference_latents"]])
        if kwargs.get("reference_latents_method") is not None:
            out["ref_latents_method"] = CONDConstant(kwargs["reference_latents_method"])
        guidance = kwargs.get("guidance", 3.5)
        if guidance is not None:
            out["guidance"] = CONDRegular(torch.tensor([float(guidance)]))
        return out

    def denoise(
        self, x: Tensor, timestep: Tensor, context: Any, control: Any, options: dict[str, Any], **conds: Any
    ) -> Tensor:
        """Call the transformer inside its DIFFUSION_MODEL wrappers."""
        y, guidance, refs = (conds.pop(name, None) for name in ("y", "guidance", "ref_latents"))
        forward = self._inside_wrappers(self.forward_transformer, options)
        return forward(x, timestep, context, y, guidance, refs, control, options, **conds)

    def forward_transformer(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        guidance: Tensor | None = None,
        ref_latents: list[Tensor] | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **conds: Any,
    ) -> Tensor:
        """Call the transformer once: x (B, C, H, W), timestep 0..1 (B,), context (B, L, D) -> (B, C, H, W)."""
        tokens, ids = patchify(x)
        count = tokens.shape[1]
        if ref_latents:
            tokens, ids = with_references(
                tokens, ids, x, ref_latents, conds.get("ref_latents_method") or self.default_ref_method
            )
        output = forward_flux(
            self.diffusion_model,
            self.calls,
            tokens,
            ids,
            context,
            timestep,
            y,
            guidance,
            control,
            conds.get("attention_mask"),
            transformer_options or {},
        )
        return unpatchify(output[:, :count], x.shape[2], x.shape[3])


def unet_residuals(control: dict[str, list[Tensor | None]] | None) -> dict[str, Any]:
    """Return what a control network adds, as arguments of a diffusers UNet."""
    if not control:
        return {}
    return {
        "down_block_additional_residuals": control["output"],
        "mid_block_additional_residual": control["middle"][0],
    }
