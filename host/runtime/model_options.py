"""Changes of `model_options`, the dictionary that carries the hooks of a run (parts of `comfy.model_patcher`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .patcher_extension import copy_nested_dicts

ModelOptions = dict[str, Any]


def create_model_options_clone(model_options: ModelOptions) -> ModelOptions:
    """Return a copy whose dictionaries and lists can be changed without touching the original."""
    return copy_nested_dicts(model_options)


def set_model_options_patch_replace(
    model_options: ModelOptions,
    patch: Any,
    name: str,
    block_name: str,
    number: int,
    transformer_index: int | None = None,
) -> ModelOptions:
    """Set `transformer_options["patches_replace"][name][(block_name, number[, transformer_index])]`.

    The dictionaries on that path are copied first, so options that share them are not changed.
    """
    block = (block_name, number) if transformer_index is None else (block_name, number, transformer_index)
    to = dict(model_options["transformer_options"])
    replace = dict(to.get("patches_replace", {}))
    replace[name] = {**replace.get(name, {}), block: patch}
    to["patches_replace"] = replace
    model_options["transformer_options"] = to
    return model_options


def _append_cfg_function(
    model_options: ModelOptions, slot: str, function: Callable[..., Any], disable_cfg1_optimization: bool
) -> ModelOptions:
    model_options[slot] = [*model_options.get(slot, []), function]
    if disable_cfg1_optimization:
        model_options["disable_cfg1_optimization"] = True
    return model_options


def set_model_options_post_cfg_function(
    model_options: ModelOptions, post_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False
) -> ModelOptions:
    """Append a function that changes the guided prediction."""
    return _append_cfg_function(
        model_options, "sampler_post_cfg_function", post_cfg_function, disable_cfg1_optimization
    )


def set_model_options_pre_cfg_function(
    model_options: ModelOptions, pre_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False
) -> ModelOptions:
    """Append a function that changes the list of predictions before guidance."""
    return _append_cfg_function(model_options, "sampler_pre_cfg_function", pre_cfg_function, disable_cfg1_optimization)


def copy_lists_and_dicts(value: Any) -> Any:
    """Copy dictionaries and lists at every depth, also lists in lists; everything else is shared."""
    if isinstance(value, dict):
        return {key: copy_lists_and_dicts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_lists_and_dicts(item) for item in value]
    return value
