"""Classifier-free guidance of one step (drop-in replacement for that part of `comfy.samplers`)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..runtime.model_options import ModelOptions
from .cond_batch import calc_cond_batch
from .conds import Cond


def cfg_function(
    model: Any,
    cond_pred: Tensor,
    uncond_pred: Tensor,
    cond_scale: float,
    x: Tensor,
    timestep: Tensor,
    model_options: ModelOptions,
    cond: list[Cond] | None = None,
    uncond: list[Cond] | None = None,
) -> Tensor:
    """Guide x0: `uncond + scale * (cond - uncond)`, or the model's own function, then its post functions."""
    predictions = {"cond_denoised": cond_pred, "uncond_denoised": uncond_pred, "cond_scale": cond_scale}
    shared = {**predictions, "model": model, "model_options": model_options, "sigma": timestep, "input": x}
    if "sampler_cfg_function" in model_options:
        noise = {"cond": x - cond_pred, "uncond": x - uncond_pred, "timestep": timestep}
        args = {**shared, **noise, "input_cond": cond, "input_uncond": uncond}
        result = x - model_options["sampler_cfg_function"](args)
    else:
        result = uncond_pred + (cond_pred - uncond_pred) * cond_scale
    for function in model_options.get("sampler_post_cfg_function", []):
        result = function({**shared, "denoised": result, "cond": cond, "uncond": uncond})
    return result


def sampling_function(
    model: Any,
    x: Tensor,
    timestep: Tensor,
    uncond: list[Cond] | None,
    cond: list[Cond] | None,
    cond_scale: float,
    model_options: ModelOptions,
    seed: int | None = None,
) -> Tensor:
    """Return x0 under guidance. At scale 1 the negative is left out, unless `disable_cfg1_optimization` is set."""
    if math.isclose(cond_scale, 1.0) and not model_options.get("disable_cfg1_optimization", False):
        uncond = None
    conds = [cond, uncond]
    shared = {"conds": conds, "input": x, "sigma": timestep, "model": model, "model_options": model_options}
    predict = model_options.get("sampler_calc_cond_batch_function")
    out = predict(shared) if predict else calc_cond_batch(model, conds, x, timestep, model_options)
    for function in model_options.get("sampler_pre_cfg_function", []):
        out = function({**shared, "conds_out": out, "cond_scale": cond_scale, "timestep": timestep})
    return cfg_function(model, out[0], out[1], cond_scale, x, timestep, model_options, cond=cond, uncond=uncond)
