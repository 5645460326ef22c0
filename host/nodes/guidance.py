"""ComfyUI's core nodes that change guidance."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..runtime.model_options import ModelOptions, set_model_options_patch_replace
from ..runtime.patcher_extension import WrappersMP
from ..sampling.cond_batch import calc_cond_batch
from ..sampling.conds import Conditioning, with_values
from ..sampling.guidance import cfg_function
from ..sampling.guiders import CFGGuider
from ..sampling.model_sampling import CONST
from ..schema import io
from ..schema.declare import Nodes, choice, decimal, switch

NODES = Nodes("model/patch")
Args = dict[str, Any]
TINY = 1e-8


def _part(name: str, default: float, tooltip: str, **more: Any) -> io.Float.Input:
    return decimal(name, default, 0.0, 1.0, 0.001, tooltip=tooltip, **more)


def _range() -> list[io.Input]:
    return [
        _part("start_percent", 0.0, "Part of the schedule before it begins."),
        _part("end_percent", 1.0, "Part of the schedule after which it ends."),
    ]


def _cfg(name: str, default: float = 8.0, tooltip: str = "Guidance scale.") -> io.Float.Input:
    return decimal(name, default, 0.0, 100.0, 0.1, round=0.01, tooltip=tooltip)


def _spread(values: Tensor) -> Tensor:
    return values.std(dim=tuple(range(1, values.ndim)), keepdim=True)


def _rescaled(cond: Tensor, uncond: Tensor, scale: float, multiplier: float, least: float = 0.0) -> Tensor:
    """Return guided predictions, in part with the deviation of the conditional ones (arXiv:2305.08891, eq. 15)."""
    guided = uncond + scale * (cond - uncond)
    rescaled = guided * (_spread(cond) / _spread(guided).clamp(min=least))
    return multiplier * rescaled + (1.0 - multiplier) * guided


@NODES(
    "RescaleCFG",
    "RescaleCFG",
    [io.Model.Input("model"), decimal("multiplier", 0.7, 0.0, 1.0, tooltip="0 changes nothing.")],
    [io.Model],
)
def rescale(model: Any, multiplier: float) -> Any:
    """Keep guidance from raising contrast, for models that predict v."""
    is_flow = isinstance(model.get_model_object("model_sampling"), CONST)

    def function(args: Args) -> Tensor:
        x, scale = args["input"], args["cond_scale"]
        if is_flow:
            return x - _rescaled(args["cond_denoised"], args["uncond_denoised"], scale, multiplier, TINY)
        sigma = args["sigma"].reshape(-1, *[1] * (x.ndim - 1))
        variance = sigma**2 + 1.0
        scaled = x / variance

        def to_v(noise: Tensor) -> Tensor:
            return (scaled - (x - noise)) * variance**0.5 / sigma

        v = _rescaled(to_v(args["cond"]), to_v(args["uncond"]), scale, multiplier)
        return x - (scaled - v * sigma / variance**0.5)

    patched = model.clone()
    patched.set_model_sampler_cfg_function(function)
    return patched


def _length(values: Tensor) -> Tensor:
    return torch.linalg.vector_norm(values, dim=1, keepdim=True)


@NODES(
    "CFGNorm",
    "CFGNorm",
    [
        io.Model.Input("model"),
        decimal("strength", 1.0, 0.0, 100.0, tooltip="1 is all of it."),
        switch("pre_cfg", False, optional=True, tooltip="Whether lengths may grow, too, and noise is compared."),
    ],
    [("patched_model", io.Model)],
    "advanced/guidance",
    is_experimental=True,
)
def norm(model: Any, strength: float, pre_cfg: bool = False) -> Any:
    """Keep guided predictions from being longer than those without guidance."""
    patched = model.clone()

    def before(args: Args) -> Tensor:
        cond, uncond = args["cond"], args["uncond"]
        guided = uncond + args["cond_scale"] * (cond - uncond)
        length = _length(guided)
        ratio = torch.where(length > 0, _length(cond) / length.clamp_min(1e-12), torch.ones_like(length))
        return guided * ratio if strength == 1.0 else strength * guided * ratio + (1.0 - strength) * guided

    def after(args: Args) -> Tensor:
        guided = args["denoised"]
        ratio = (_length(args["cond_denoised"]) / (_length(guided) + TINY)).clamp(0.0, 1.0)
        return guided * ratio * strength

    if pre_cfg:
        patched.set_model_sampler_cfg_function(before)
    else:
        patched.set_model_sampler_post_cfg_function(after)
    return patched


@NODES(
    "CFGZeroStar",
    "CFGZeroStar",
    [io.Model.Input("model")],
    [("patched_model", io.Model)],
    "advanced/guidance",
)
def zero_star(model: Any) -> Any:
    """Scale the negative prediction to the positive one before guidance (Fan et al. 2025, arXiv:2503.18886)."""

    def function(args: Args) -> Tensor:
        x, cond, uncond = args["input"], args["cond_denoised"], args["uncond_denoised"]
        one, two = (x - cond).flatten(1), (x - uncond).flatten(1)
        alpha = (one * two).sum(1) / ((two**2).sum(1) + TINY)
        alpha = alpha.reshape(-1, *[1] * (x.ndim - 1))
        return args["denoised"] + uncond * (alpha - 1.0) * (1.0 - args["cond_scale"])

    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(function)
    return patched


@NODES(
    "CFGOverride",
    "CFG Override",
    [io.Model.Input("model"), _cfg("cfg", 1.0), *_range()],
    [io.Model],
    "model/sampling/guiders",
)
def override(model: Any, cfg: float, start_percent: float, end_percent: float) -> Any:
    """Set another guidance scale for some of the steps."""
    sampling = model.get_model_object("model_sampling")
    high, low = sampling.percent_to_sigma(start_percent), sampling.percent_to_sigma(end_percent)

    def wrapper(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        guider, own = executor.class_obj, executor.class_obj.cfg
        if low <= float(timestep.flatten()[0]) <= high:
            guider.cfg = cfg
        try:
            return executor(x, timestep, *args, **kwargs)
        finally:
            guider.cfg = own

    patched = model.clone()
    patched.add_wrapper(WrappersMP.PREDICT_NOISE, wrapper)
    return patched


@NODES(
    "PerturbedAttentionGuidance",
    "PerturbedAttentionGuidance",
    [io.Model.Input("model"), decimal("scale", 3.0, 0.0, 100.0, round=0.01, tooltip="0 is off.")],
    [io.Model],
    "model/patch/unet",
)
def perturbed_attention(model: Any, scale: float) -> Any:
    """Guide away from what a UNet predicts without self-attention in its middle (Ahn et al. 2024, arXiv:2403.17377)."""

    def values(q: Tensor, k: Tensor, v: Tensor, extra: Args, mask: Tensor | None = None) -> Tensor:
        return v

    def function(args: Args) -> Tensor:
        if scale == 0:
            return args["denoised"]
        options = set_model_options_patch_replace(dict(args["model_options"]), values, "attn1", "middle", 0)
        (worse,) = calc_cond_batch(args["model"], [args["cond"]], args["input"], args["sigma"], options)
        return args["denoised"] + (args["cond_denoised"] - worse) * scale

    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(function)
    return patched


class DualCFG(CFGGuider):
    """Two prompts and a negative one, each pair with its own scale."""

    cfg1, cfg2, nested = 1.0, 1.0, False

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: ModelOptions | None = None, seed: int | None = None
    ) -> Tensor:
        """Return x0 (B, C, H, W) of latents x at sigma `timestep` (B,)."""
        options = model_options or {}
        conds = [self.conds.get(name) for name in ("negative", "middle", "positive")]
        if not self.nested and not options.get("disable_cfg1_optimization") and math.isclose(self.cfg2, 1.0):
            conds[0] = None
            conds[1] = None if math.isclose(self.cfg1, 1.0) else conds[1]
        negative, middle, positive = calc_cond_batch(self.inner_model, conds, x, timestep, options)

        def guide(one: int, two: int, predictions: tuple[Tensor, Tensor], scale: float) -> Tensor:
            prompts = {"cond": conds[one], "uncond": conds[two]}
            return cfg_function(self.inner_model, *predictions, scale, x, timestep, options, **prompts)

        if self.nested:
            inner = guide(2, 1, (positive, middle), self.cfg1)
            return negative + self.cfg2 * (inner - negative)
        return guide(1, 0, (middle, negative), self.cfg2) + (positive - middle) * self.cfg1


@NODES(
    "DualCFGGuider",
    "Dual CFG Guider",
    [
        io.Model.Input("model"),
        io.Conditioning.Input("cond1", tooltip="The whole prompt."),
        io.Conditioning.Input("cond2", tooltip="The prompt without what the first scale stresses."),
        io.Conditioning.Input("negative", tooltip="The negative prompt."),
        _cfg("cfg_conds", tooltip="Guidance from the second prompt towards the first."),
        _cfg("cfg_cond2_negative", tooltip="Guidance from the negative prompt towards the second."),
        choice("style", ["regular", "nested"], tooltip="Whether the second guidance acts on the result of the first."),
    ],
    [io.Guider],
    "model/sampling/guiders",
    search_aliases=["dual prompt guidance"],
)
def dual(
    model: Any,
    cond1: Conditioning,
    cond2: Conditioning,
    negative: Conditioning,
    cfg_conds: float,
    cfg_cond2_negative: float,
    style: str,
) -> DualCFG:
    """Guide by two prompts with a scale each, as edit models do."""
    guider = DualCFG(model)
    middle = with_values(cond2, prompt_type="negative")
    guider.inner_set_conds({"positive": cond1, "middle": middle, "negative": negative})
    guider.cfg1, guider.cfg2, guider.nested = cfg_conds, cfg_cond2_negative, style == "nested"
    return guider


@NODES(
    "DifferentialDiffusion",
    "Differential Diffusion",
    [
        io.Model.Input("model"),
        decimal("strength", 1.0, 0.0, 1.0, optional=True, tooltip="0 leaves the mask as it is."),
    ],
    [io.Model],
    "experimental",
    is_experimental=True,
    search_aliases=["inpaint gradient", "variable denoise strength"],
)
def differential(model: Any, strength: float = 1.0) -> Any:
    """Let grey parts of a mask change in the later steps alone (Levin and Fried 2023, arXiv:2306.00950)."""

    def function(sigma: Tensor, denoise_mask: Tensor, extra_options: Args) -> Tensor:
        sampling, sigmas = extra_options["model"].inner_model.model_sampling, extra_options["sigmas"]
        last = sigmas[-1] if sigmas[-1] > sampling.sigma_min else sampling.sigma_min
        first, end, now = (sampling.timestep(each) for each in (sigmas[0], last, sigma[0]))
        open_now = (denoise_mask >= (now - end) / (first - end)).to(denoise_mask.dtype)
        return strength * open_now + (1 - strength) * denoise_mask if 0 < strength < 1 else open_now

    patched = model.clone()
    patched.set_model_denoise_mask_function(function)
    return patched
