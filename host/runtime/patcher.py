"""Patches around a shared model that leave no trace (drop-in replacement for `comfy.model_patcher`)."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from .model_options import (
    ModelOptions,
    copy_lists_and_dicts,
    set_model_options_patch_replace,
    set_model_options_post_cfg_function,
    set_model_options_pre_cfg_function,
)
from .patcher_extension import CallbacksMP, Registry, WrapperExecutor, WrappersMP, all_of, copy_nested_dicts, register

__all__ = ["CallbacksMP", "ModelPatcher", "WrapperExecutor", "WrappersMP"]

WeightPatch = Callable[[torch.Tensor], torch.Tensor] | torch.Tensor
"""A change of one weight at strength 1: the difference as a tensor, or a function of the unpatched float32 weight."""

StrengthenedPatch = tuple[float, WeightPatch, float]
"""The factor of a change, the change, and the factor of the weight before it."""


class AttributeBackup(NamedTuple):
    """What an object patch covered. `inherited`: the attribute came from the class, so restoring means deleting."""

    value: Any
    inherited: bool


def _resolve(root: Any, path: str) -> tuple[Any, str]:
    *parents, leaf = path.split(".")
    for name in parents:
        root = getattr(root, name)
    return root, leaf


def _is_own_attribute(owner: Any, name: str) -> bool:
    tables = (vars(owner), *(vars(owner).get(table, {}) for table in ("_modules", "_parameters", "_buffers")))
    return any(name in table for table in tables)


def with_patches(weight: torch.Tensor, patches: Iterable[StrengthenedPatch]) -> torch.Tensor:
    """Return a weight with patches, one after another, in its own precision; it stays as it is."""
    total = weight
    for strength, patch, strength_model in patches:
        total = total * strength_model
        change = patch if isinstance(patch, torch.Tensor) else patch(total)
        if change.shape != total.shape:
            total = F.pad(total, (0, change.shape[-1] - total.shape[-1]))
        total += strength * change.to(total)
    return total


class ModelPatcher:
    """A shared model and the patches that one branch of the graph put on it.

    Clones share the model. Patches touch it only between `patch_model` and `unpatch_model`, that is during a run, and
    are undone bit for bit.

    Args:
        model: the module, usually a `BaseModel`; for text encoders and VAEs any module.
        load_device: where it runs.
        offload_device: where it rests between runs; equal to `load_device` to keep it resident.
    """

    def __init__(
        self, model: Any, load_device: torch.device | str, offload_device: torch.device | str, size: int = 0
    ) -> None:
        self.model = model
        self.load_device = torch.device(load_device)
        self.offload_device = torch.device(offload_device)
        self.size = size
        self.model_options: ModelOptions = {"transformer_options": {}}
        self.patches: dict[str, list[StrengthenedPatch]] = {}
        self.patches_uuid = uuid.uuid4()
        self.object_patches: dict[str, Any] = {}
        self.wrappers: Registry = {}
        self.callbacks: Registry = {}
        self.parent: ModelPatcher | None = None
        # Shared with all clones: the model has one state.
        self.patched_by: list[ModelPatcher] = []
        self.backup: dict[str, torch.Tensor] = {}
        self.object_patches_backup: dict[str, AttributeBackup] = {}

    def clone(self) -> ModelPatcher:
        """Return a patcher on the same model with its own copy of every patch."""
        n = self.__class__(self.model, self.load_device, self.offload_device, self.size)
        n.model_options = copy_lists_and_dicts(self.model_options)
        n.patches = {key: list(patches) for key, patches in self.patches.items()}
        n.patches_uuid = self.patches_uuid
        n.object_patches = dict(self.object_patches)
        n.wrappers = copy_nested_dicts(self.wrappers)
        n.callbacks = copy_nested_dicts(self.callbacks)
        n.parent = self
        n.patched_by, n.backup, n.object_patches_backup = self.patched_by, self.backup, self.object_patches_backup
        for callback in self.get_all_callbacks(CallbacksMP.ON_CLONE):
            callback(self, n)
        return n

    def is_clone(self, other: Any) -> bool:
        """Return whether the other patcher holds the same model."""
        return getattr(other, "model", None) is self.model

    def model_size(self) -> int:
        """Return the bytes of parameters and buffers."""
        if self.size <= 0:
            self.size = sum(t.nelement() * t.element_size() for t in self.model.state_dict().values())
        return self.size

    def model_dtype(self) -> torch.dtype | None:
        """Return the dtype in which the model computes, when it says so."""
        return self.model.get_dtype() if hasattr(self.model, "get_dtype") else None

    def model_state_dict(self, filter_prefix: str | None = None) -> dict[str, torch.Tensor]:
        """Return the model's state dict, optionally only the keys with a prefix."""
        return {
            k: v for k, v in self.model.state_dict().items() if filter_prefix is None or k.startswith(filter_prefix)
        }

    # Guidance

    def disable_model_cfg1_optimization(self) -> None:
        """Predict the negative even at cfg 1."""
        self.model_options["disable_cfg1_optimization"] = True

    def set_model_sampler_cfg_function(
        self, sampler_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False
    ) -> None:
        """Replace guidance: `f({"cond", "uncond", "cond_scale", ...})` or `f` of these three, in noise units."""
        function = sampler_cfg_function
        if len(inspect.signature(sampler_cfg_function).parameters) == 3:

            def function(args: dict[str, Any]) -> torch.Tensor:
                return sampler_cfg_function(args["cond"], args["uncond"], args["cond_scale"])

        self.model_options["sampler_cfg_function"] = function
        if disable_cfg1_optimization:
            self.disable_model_cfg1_optimization()

    def set_model_sampler_post_cfg_function(
        self, post_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False
    ) -> None:
        """Append a function that changes the guided prediction."""
        set_model_options_post_cfg_function(self.model_options, post_cfg_function, disable_cfg1_optimization)

    def set_model_sampler_pre_cfg_function(
        self, pre_cfg_function: Callable[..., Any], disable_cfg1_optimization: bool = False
    ) -> None:
        """Append a function that changes the list of predictions before guidance."""
        set_model_options_pre_cfg_function(self.model_options, pre_cfg_function, disable_cfg1_optimization)

    def set_model_sampler_calc_cond_batch_function(self, function: Callable[..., Any]) -> None:
        """Replace the predictions of a step: `f({"conds", "input", "sigma", "model", "model_options"})`."""
        self.model_options["sampler_calc_cond_batch_function"] = function

    def set_model_unet_function_wrapper(self, unet_wrapper_function: Callable[..., Any]) -> None:
        """Surround `apply_model`: `f(apply_model, {"input", "timestep", "c", "cond_or_uncond"})`. One slot."""
        self.model_options["model_function_wrapper"] = unet_wrapper_function

    def set_model_denoise_mask_function(self, denoise_mask_function: Callable[..., Any]) -> None:
        """Replace the noise mask at every step: `f(sigma, mask, extra_options=)`."""
        self.model_options["denoise_mask_function"] = denoise_mask_function

    # Patches inside the denoiser

    def set_model_patch(self, patch: Any, name: str) -> None:
        """Append to `transformer_options["patches"][name]`."""
        patches = self.model_options["transformer_options"].setdefault("patches", {})
        patches[name] = [*patches.get(name, []), patch]

    def set_model_patch_replace(
        self, patch: Any, name: str, block_name: str, number: int, transformer_index: int | None = None
    ) -> None:
        """Set `transformer_options["patches_replace"][name][block]`."""
        set_model_options_patch_replace(self.model_options, patch, name, block_name, number, transformer_index)

    def set_model_attn1_patch(self, patch: Any) -> None:
        """Append a change of q, k, v of self-attention."""
        self.set_model_patch(patch, "attn1_patch")

    def set_model_attn2_patch(self, patch: Any) -> None:
        """Append a change of q, k, v of cross-attention."""
        self.set_model_patch(patch, "attn2_patch")

    def set_model_attn1_replace(
        self, patch: Any, block_name: str, number: int, transformer_index: int | None = None
    ) -> None:
        """Replace self-attention of one block."""
        self.set_model_patch_replace(patch, "attn1", block_name, number, transformer_index)

    def set_model_attn2_replace(
        self, patch: Any, block_name: str, number: int, transformer_index: int | None = None
    ) -> None:
        """Replace cross-attention of one block."""
        self.set_model_patch_replace(patch, "attn2", block_name, number, transformer_index)

    def set_model_output_block_patch(self, patch: Any) -> None:
        """Append a change of what a block on the way up of a UNet gets: from below, and over its skip connection."""
        self.set_model_patch(patch, "output_block_patch")

    def set_model_attn1_output_patch(self, patch: Any) -> None:
        """Append a change of self-attention's output."""
        self.set_model_patch(patch, "attn1_output_patch")

    def _denoiser_patches(self) -> Iterator[tuple[Any, Any, Any]]:
        """Yield (container, key, patch) of everything that may hold tensors of its own."""
        to = self.model_options["transformer_options"]
        for patches in to.get("patches", {}).values():
            yield from ((patches, i, patch) for i, patch in enumerate(patches))
        for blocks in to.get("patches_replace", {}).values():
            yield from ((blocks, key, patch) for key, patch in list(blocks.items()))
        if "model_function_wrapper" in self.model_options:
            yield self.model_options, "model_function_wrapper", self.model_options["model_function_wrapper"]

    def model_patches_to(self, device: torch.device | torch.dtype) -> None:
        """Move patches that have a `to` method."""
        for container, key, patch in self._denoiser_patches():
            if hasattr(patch, "to"):
                container[key] = patch.to(device)

    # Objects and weights

    def add_object_patch(self, name: str, obj: Any) -> None:
        """Put `obj` in the place of the model's attribute `name` (a dotted path) during runs."""
        self.object_patches[name] = obj

    def get_model_object(self, name: str) -> Any:
        """Return the attribute at a dotted path as this patcher sees it: its own patch, else the unpatched one."""
        if name in self.object_patches:
            return self.object_patches[name]
        if name in self.object_patches_backup:
            return self.object_patches_backup[name].value
        owner, leaf = _resolve(self.model, name)
        return getattr(owner, leaf)

    def add_patches(
        self, patches: Mapping[str, WeightPatch], strength_patch: float = 1.0, strength_model: float = 1.0
    ) -> list[str]:
        """Add weight changes: `weight * strength_model + strength_patch * change`, one after another.

        Args:
            patches: state dict key -> the change at strength 1, either a tensor or a function that takes the float32
                weight and returns the change in its shape (for LoRA: alpha / rank * up @ down).

        Returns:
            The keys that the model has; the others are the caller's to report.
        """
        weights = self.model.state_dict()
        known = [key for key in patches if key in weights]
        for key in known:
            self.patches.setdefault(key, []).append((strength_patch, patches[key], strength_model))
        self.patches_uuid = uuid.uuid4()
        return known

    def patched_weight(self, key: str, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight with all its patches, computed in float32, in the weight's own dtype.

        Changes may have more columns, of which the weight gets as many.
        """
        return with_patches(weight.detach().float(), self.patches[key]).to(weight.dtype)

    def unpatched_weight(self, key: str) -> torch.Tensor:
        """Return a weight of the model as it was loaded, during runs, too."""
        return self.backup[key] if key in self.backup else self.model.get_parameter(key).detach()

    def patch_model(self, device_to: torch.device | str | None = None) -> Any:
        """Move the model to a device and put object and weight patches on it.

        Raises:
            RuntimeError: a run on the same model is under way.
        """
        if self.patched_by:
            raise RuntimeError("the model is being sampled; end that run before starting another on the same model")
        self.patched_by.append(self)
        try:
            self._move_to(device_to)
            self._patch_weights()
            self._patch_objects()
            if device_to is not None:
                # Modules among the object patches.
                self.model.to(device_to)
            for callback in self.get_all_callbacks(CallbacksMP.ON_LOAD):
                callback(self, device_to, 0, False, True)
        except BaseException:
            self.unpatch_model()
            raise
        return self.model

    def _move_to(self, device: torch.device | str | None) -> None:
        if device is not None:
            self.model.to(device)
            self.model_patches_to(torch.device(device))

    def _patch_weights(self) -> None:
        tensors = self.model.state_dict(keep_vars=True) if self.patches else {}
        for key in self.patches:
            patched = self.patched_weight(key, tensors[key])
            self.backup[key] = tensors[key].data.to(self.offload_device)
            tensors[key].data = patched

    def _patch_objects(self) -> None:
        for name, obj in self.object_patches.items():
            owner, leaf = _resolve(self.model, name)
            old = AttributeBackup(getattr(owner, leaf), not _is_own_attribute(owner, leaf))
            setattr(owner, leaf, obj)
            self.object_patches_backup[name] = old

    def unpatch_model(self, device_to: torch.device | str | None = None) -> None:
        """Undo this patcher's `patch_model`, if it was called, bit for bit, and move the model to a device."""
        if self not in self.patched_by:
            return
        for name, old in reversed(self.object_patches_backup.items()):
            owner, leaf = _resolve(self.model, name)
            if old.inherited:
                delattr(owner, leaf)
            else:
                setattr(owner, leaf, old.value)
        self.object_patches_backup.clear()
        tensors = self.model.state_dict(keep_vars=True) if self.backup else {}
        for key, weight in self.backup.items():
            tensors[key].data = weight.to(tensors[key].device)
        self.backup.clear()
        self.patched_by.clear()
        self._move_to(device_to)

    # A run

    def pre_run(self) -> None:
        """Begin a run, after `patch_model`."""
        if hasattr(self.model, "current_patcher"):
            self.model.current_patcher = self
        for callback in self.get_all_callbacks(CallbacksMP.ON_PRE_RUN):
            callback(self)

    def prepare_state(self, timestep: torch.Tensor, model_options: ModelOptions) -> None:
        """Tell the callbacks before every prediction of a run."""
        for callback in self.get_all_callbacks(CallbacksMP.ON_PREPARE_STATE):
            callback(self, timestep, model_options)

    def cleanup(self) -> None:
        """End a run, also after an error."""
        for _, _, patch in self._denoiser_patches():
            if hasattr(patch, "cleanup"):
                patch.cleanup()
        if hasattr(self.model, "current_patcher"):
            self.model.current_patcher = None
        for callback in self.get_all_callbacks(CallbacksMP.ON_CLEANUP):
            callback(self)

    # Wrappers and callbacks

    def add_wrapper(self, wrapper_type: str, wrapper: Callable[..., Any]) -> None:
        """Add a wrapper of a `WrappersMP` type without a key."""
        self.add_wrapper_with_key(wrapper_type, None, wrapper)

    def add_wrapper_with_key(self, wrapper_type: str, key: str | None, wrapper: Callable[..., Any]) -> None:
        """Add a wrapper of a `WrappersMP` type under a key by which it can be removed."""
        register(self.wrappers, wrapper_type, key, wrapper)

    def remove_wrappers_with_key(self, wrapper_type: str, key: str) -> None:
        """Remove the wrappers of a type and key, if any."""
        self.wrappers.get(wrapper_type, {}).pop(key, None)

    def get_wrappers(self, wrapper_type: str, key: str) -> list[Callable[..., Any]]:
        """Return the wrappers of a type and key."""
        return self.wrappers.get(wrapper_type, {}).get(key, [])

    def get_all_wrappers(self, wrapper_type: str) -> list[Callable[..., Any]]:
        """Return the wrappers of a type."""
        return all_of(self.wrappers, wrapper_type)

    def add_callback(self, call_type: str, callback: Callable[..., Any]) -> None:
        """Add a callback of a `CallbacksMP` type without a key."""
        self.add_callback_with_key(call_type, None, callback)

    def add_callback_with_key(self, call_type: str, key: str | None, callback: Callable[..., Any]) -> None:
        """Add a callback of a `CallbacksMP` type under a key by which it can be removed."""
        register(self.callbacks, call_type, key, callback)

    def get_all_callbacks(self, call_type: str) -> list[Callable[..., Any]]:
        """Return the callbacks of a type."""
        return all_of(self.callbacks, call_type)
