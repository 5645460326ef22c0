"""What a MODEL needs on the device beside its own weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, device, dtype, nn

Manage = Callable[[nn.Module], Any]
"""Puts a module under a host's memory management: returns a MODEL around it, None where a host has none."""


class Resident:
    """Names models that a host loads together with a MODEL, in the form in which ComfyUI asks patches for them.

    So the host makes room for them, moves them before the first step, and takes them off the device like its own.

    Args:
        find: returns the models.
    """

    def __init__(self, find: Callable[[], list[Any]]) -> None:
        self.find = find

    def models(self) -> list[Any]:
        """Return the models."""
        return self.find()

    def to(self, *_: Any) -> Resident:
        """Return itself: the host moves its models, not this."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Resident:
        return self


def keep_resident(clone: Any, name: str, find: Callable[[], list[Any]]) -> None:
    """Let a clone of a MODEL name models that it needs, in place of those that had the same name.

    Args:
        clone: the MODEL; it is changed.
        name: no network calls patches of this name.
        find: returns the models.
    """
    patches = clone.model_options["transformer_options"].setdefault("patches", {})
    patches[name] = [Resident(find)]


def place_of(model: Any) -> tuple[device, dtype]:
    """Return where a host's MODEL runs, and the dtype in which it computes."""
    return model.load_device, model.model.get_dtype_inference()


def on_device(tensor: Tensor, target: device) -> Tensor:
    """Return a tensor on a device, without a wait for the copy where the device can do without."""
    if tensor.device == target:
        return tensor
    pinned = target.type == "cuda" and tensor.device.type == "cpu"
    return (tensor.pin_memory() if pinned else tensor).to(target, non_blocking=pinned)
