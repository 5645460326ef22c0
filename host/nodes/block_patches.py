"""ComfyUI's core nodes that reach into the blocks of transformers."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from ..runtime.model_options import ModelOptions, set_model_options_patch_replace
from ..sampling.cond_batch import calc_cond_batch
from ..schema import io
from ..schema.declare import Nodes, decimal

NODES = Nodes("advanced/guidance")
Args = dict[str, Any]
TINY = 1e-6


BOTH_KINDS = (
    io.String.Input("double_layers", default="7, 8, 9", advanced=True, tooltip="Blocks of both streams."),
    io.String.Input("single_layers", default="7, 8, 9", advanced=True, tooltip="Blocks of one stream."),
)


def _range(start: float, end: float) -> tuple[io.Input, io.Input]:
    return (
        _part("start_percent", start, "Part of the schedule before it begins."),
        _part("end_percent", end, "Part of the schedule after which it ends."),
    )


def _part(name: str, default: float, tooltip: str) -> io.Input:
    return decimal(name, default, 0.0, 1.0, 0.001, tooltip=tooltip, advanced=True)


def _layers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def without_layers(options: ModelOptions, double: list[int], single: list[int]) -> ModelOptions:
    """Return model options with which a transformer skips blocks."""

    def skip(args: Args, extra: Args) -> Args:
        return args

    options = dict(options)
    for kind, layers in (("double_block", double), ("single_block", single)):
        for layer in layers:
            options = set_model_options_patch_replace(options, skip, "dit", kind, layer)
    return options


@NODES(
    "SkipLayerGuidanceDiT",
    "SkipLayerGuidanceDiT",
    [
        io.Model.Input("model"),
        *BOTH_KINDS,
        decimal("scale", 3.0, 0.0, 10.0, 0.1, tooltip="0 is off."),
        *_range(0.01, 0.15),
        decimal("rescaling_scale", 0.0, 0.0, 10.0, tooltip="How much of the deviation of the prediction is kept."),
    ],
    [io.Model],
    is_experimental=True,
)
def skip_layers(
    model: Any,
    double_layers: str,
    single_layers: str,
    scale: float,
    start_percent: float,
    end_percent: float,
    rescaling_scale: float,
) -> Any:
    """Guide away from what a transformer predicts without some of its blocks."""
    double, single = _layers(double_layers), _layers(single_layers)
    sampling = model.get_model_object("model_sampling")
    high, low = sampling.percent_to_sigma(start_percent), sampling.percent_to_sigma(end_percent)
    if not double and not single:
        return model

    def function(args: Args) -> Tensor:
        guided, cond = args["denoised"], args["cond_denoised"]
        if scale <= 0 or not low <= float(args["sigma"][0]) <= high:
            return guided
        options = without_layers(args["model_options"], double, single)
        (worse,) = calc_cond_batch(args["model"], [args["cond"]], args["input"], args["sigma"], options)
        guided = guided + (cond - worse) * scale
        if rescaling_scale:
            guided = guided * (rescaling_scale * cond.std() / guided.std() + (1 - rescaling_scale))
        return guided

    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(function)
    return patched


@NODES(
    "SkipLayerGuidanceDiTSimple",
    "SkipLayerGuidanceDiTSimple",
    [
        io.Model.Input("model"),
        *BOTH_KINDS,
        *_range(0.0, 1.0),
    ],
    [io.Model],
    is_experimental=True,
)
def skip_layers_of_negative(
    model: Any, double_layers: str, single_layers: str, start_percent: float, end_percent: float
) -> Any:
    """Predict the negative prompt without some blocks of a transformer."""
    double, single = _layers(double_layers), _layers(single_layers)
    sampling = model.get_model_object("model_sampling")
    high, low = sampling.percent_to_sigma(start_percent), sampling.percent_to_sigma(end_percent)
    if not double and not single:
        return model

    def predict(args: Args) -> list[Tensor]:
        conds, options = args["conds"], args["model_options"]
        shared = args["input"], args["sigma"]
        if conds[1] is None or not low <= float(args["sigma"][0]) <= high:
            return calc_cond_batch(args["model"], conds, *shared, options)
        cond = calc_cond_batch(args["model"], [conds[0], None], *shared, options)[0]
        worse = without_layers(options, double, single)
        return [cond, calc_cond_batch(args["model"], [None, conds[1]], *shared, worse)[1]]

    patched = model.clone()
    patched.set_model_sampler_calc_cond_batch_function(predict)
    return patched


@NODES(
    "SkipLayerGuidanceSD3",
    "SkipLayerGuidanceSD3",
    [
        io.Model.Input("model"),
        io.String.Input("layers", default="7, 8, 9", advanced=True, tooltip="Blocks, counted from 0."),
        decimal("scale", 3.0, 0.0, 10.0, 0.1, tooltip="0 is off."),
        *_range(0.01, 0.15),
    ],
    [io.Model],
    is_experimental=True,
)
def skip_layers_of_sd3(model: Any, layers: str, scale: float, start_percent: float, end_percent: float) -> Any:
    """Guide away from what Stable Diffusion 3 predicts without some of its blocks."""
    return skip_layers(model, layers, "", scale, start_percent, end_percent, 0.0)


def normalized_guidance(positive: Tensor, negative: Tensor, scale: float, alpha: float, tau: float) -> Tensor:
    """Return attention for a prompt that is led away from another one (Chen et al. 2025, arXiv:2505.21179).

    Args:
        positive, negative: attention (B, N, D) with either prompt.
        scale: 1 changes nothing.
        alpha: how much of the result counts, 0..1.
        tau: how much longer it may be than before, in the sum of absolute values.
    """
    guided = positive * scale - negative * (scale - 1.0)
    before, after = (each.norm(p=1, dim=-1, keepdim=True).clamp_min(TINY) for each in (positive, guided))
    ratio = after / before
    return alpha * guided * (ratio.clamp_max(tau) / ratio) + (1.0 - alpha) * positive


@NODES(
    "NAGuidance",
    "Normalized Attention Guidance",
    [
        io.Model.Input("model"),
        decimal("nag_scale", 5.0, 0.0, 50.0, 0.1, tooltip="How far from the negative prompt; 1 is off."),
        decimal("nag_alpha", 0.5, 0.0, 1.0, tooltip="How much of the guided attention counts; 0 is off."),
        decimal("nag_tau", 1.5, 1.0, 10.0, tooltip="How much longer attention may become."),
    ],
    [io.Model],
    is_experimental=True,
)
def guide_attention(model: Any, nag_scale: float, nag_alpha: float, nag_tau: float) -> Any:
    """Let a negative prompt act inside attention, in models that were distilled for one prompt, too."""

    def patch(out: Tensor, options: Args) -> Tensor:
        prompts = options.get("cond_or_uncond") or []
        if not {0, 1} <= set(prompts):
            return out
        first, last = options.get("img_slice") or (0, out.shape[1])
        parts = list(out.chunk(len(prompts)))
        sides = (prompts.index(0), prompts.index(1))
        positive, negative = (parts[side][:, first:last] for side in sides)
        guided = normalized_guidance(positive, negative, nag_scale, nag_alpha, nag_tau)
        # Of a transformer the negative half goes on with the same image.
        for side in sides if options.get("img_slice") else sides[:1]:
            parts[side] = torch.cat([parts[side][:, :first], guided, parts[side][:, last:]], 1)
        return torch.cat(parts)

    patched = model.clone()
    patched.set_model_attn1_output_patch(patch)
    patched.disable_model_cfg1_optimization()
    return patched


class KeptReferences:
    """Keys and values of reference images, which a run computes in its first step and keeps.

    A patch of queries, keys and values: `extra_options` say how many tokens of reference images are behind the others.
    """

    def __init__(self) -> None:
        self.kept: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: Args, **others: Any) -> Args:
        """Take keys and values (B, H, N, D) of references from those kept, or keep them."""
        count = sum(extra_options.get("reference_image_num_tokens", []))
        if not count:
            return {}
        block = extra_options["block_type"], extra_options["block_index"]
        if block not in self.kept:
            self.kept[block] = k[:, :, -count:].clone(), v[:, :, -count:].clone()
            return {}
        more = (_batched(each, len(q)) for each in self.kept[block])
        k, v = (torch.cat([now, before], 2) for now, before in zip((k, v), more, strict=True))
        return {"q": q, "k": k, "v": v}

    def leave_out(self, values: Args) -> Args:
        """Take the tokens of references out of the image's (B, N, D) where their keys are kept."""
        count = sum(values["transformer_options"].get("reference_image_num_tokens", []))
        return {**values, "img": values["img"][:, :-count]} if count and self.kept else values

    def cleanup(self) -> None:
        """Forget them, as a run has ended."""
        self.kept = {}


def _batched(tensor: Tensor, size: int) -> Tensor:
    """Return as many samples as wanted, those given over and over."""
    return tensor[torch.arange(size, device=tensor.device) % len(tensor)]


@NODES(
    "FluxKVCache",
    "Flux KV Cache",
    [io.Model.Input("model")],
    [io.Model],
    "experimental",
    is_experimental=True,
)
def keep_references(model: Any) -> Any:
    """Compute keys and values of reference images once in a run, for models that were trained to see them so."""
    references, patched = KeptReferences(), model.clone()
    patched.set_model_patch(references, "attn1_patch")
    patched.set_model_patch(references.leave_out, "post_input")
    patched.add_object_patch("default_ref_method", "index_timestep_zero")
    return patched
