"""Wrappers and callbacks around a sampling run (drop-in replacement for `comfy.patcher_extension`).

Both registries are nested dictionaries `{type: {key: [function, ...]}}`, kept on a `ModelPatcher` and, during a run, in
`transformer_options["wrappers"]` and `["callbacks"]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...patching import calls

Registry = dict[str, dict[Any, list[Callable[..., Any]]]]


class CallbacksMP:
    """Moments at which callbacks of a `ModelPatcher` are called."""

    ON_CLONE = "on_clone"
    ON_LOAD = "on_load_after"
    ON_PRE_RUN = "on_pre_run"
    ON_PREPARE_STATE = "on_prepare_state"
    ON_CLEANUP = "on_cleanup"


class WrappersMP:
    """Calls that wrappers can surround, from the outermost to the innermost.

    A wrapper receives `(executor, *arguments of the call)` and calls `executor(*arguments)` to go on:

    * OUTER_SAMPLE `(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, latent_shapes=)`
    * PREPARE_SAMPLING `(model_patcher, noise_shape, conds, model_options=, ...)`
    * SAMPLER_SAMPLE `(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)`
    * PREDICT_NOISE `(x, timestep, model_options, seed)`; `executor.class_obj` is the guider
    * CALC_COND_BATCH `(model, conds, x_in, timestep, model_options)`
    * APPLY_MODEL `(x, t, c_concat, c_crossattn, control, transformer_options, **conds)`
    * DIFFUSION_MODEL, UNet: `(x, timesteps, context, y, control, transformer_options, **conds)`;
      Flux: `(x, timestep, context, y, guidance, ref_latents, control, transformer_options, **conds)`
    """

    OUTER_SAMPLE = calls.SamplingRun.kind
    PREPARE_SAMPLING = "prepare_sampling"
    SAMPLER_SAMPLE = "sampler_sample"
    PREDICT_NOISE = calls.NoisePrediction.kind
    CALC_COND_BATCH = calls.CondBatch.kind
    APPLY_MODEL = calls.DenoiserCall.kind
    DIFFUSION_MODEL = calls.FluxCall.kind


def get_all_wrappers(wrapper_type: str, transformer_options: dict[str, Any]) -> list[Callable[..., Any]]:
    """Return all wrappers of one type, in the order in which their keys were first used."""
    return all_of(transformer_options.get("wrappers", {}), wrapper_type)


def register(registry: Registry, kind: str, key: str | None, function: Callable[..., Any]) -> None:
    """Append a function under its type and key."""
    registry.setdefault(kind, {}).setdefault(key, []).append(function)


def all_of(registry: Registry, kind: str) -> list[Callable[..., Any]]:
    """Return all functions of one type, whatever their key."""
    return [function for functions in registry.get(kind, {}).values() for function in functions]


class WrapperExecutor:
    """Runs a function inside its wrappers, the first of them outermost.

    In a wrapper, call the executor itself to go on inward; `execute` starts the chain. `class_obj` is the object whose
    method is wrapped, None for a plain function.
    """

    def __init__(
        self, original: Callable[..., Any], class_obj: Any, wrappers: list[Callable[..., Any]], idx: int = 0
    ) -> None:
        self.original = original
        self.class_obj = class_obj
        self.wrappers = list(wrappers)
        self.idx = idx
        self.is_last = idx == len(self.wrappers)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return WrapperExecutor(self.original, self.class_obj, self.wrappers, self.idx + 1).execute(*args, **kwargs)

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapper at this position, or the original behind the last one."""
        if self.is_last:
            return self.original(*args, **kwargs)
        return self.wrappers[self.idx](self, *args, **kwargs)


def wrapped(
    kind: str, transformer_options: dict[str, Any], function: Callable[..., Any], class_obj: Any = None
) -> Callable[..., Any]:
    """Return a function inside the wrappers of a kind, or the function itself where there are none.

    Args:
        class_obj: the object whose method the function is.
    """
    wrappers = get_all_wrappers(kind, transformer_options)
    return WrapperExecutor(function, class_obj, wrappers).execute if wrappers else function


def copy_nested_dicts(source: dict[Any, Any]) -> dict[Any, Any]:
    """Copy dictionaries at every depth and the lists in them; everything else is shared."""

    def copied(value: Any) -> Any:
        if isinstance(value, dict):
            return copy_nested_dicts(value)
        return list(value) if isinstance(value, list) else value

    return {key: copied(value) for key, value in source.items()}


def merge_nested_dicts(first: dict[Any, Any], second: dict[Any, Any], copy_dict1: bool = True) -> dict[Any, Any]:
    """Merge the second into the first (or a copy): dictionaries merge, lists append, other values replace."""
    merged = copy_nested_dicts(first) if copy_dict1 else first
    for key, value in second.items():
        if isinstance(value, dict):
            merged[key] = merge_nested_dicts(merged.get(key, {}), value)
        elif isinstance(value, list):
            merged[key] = merged.get(key, []) + value
        else:
            merged[key] = value
    return merged
