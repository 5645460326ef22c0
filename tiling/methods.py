"""Choice of the seamless method for a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..patching.networks import describe
from ..patching.schedule import ScheduleRange
from .axes import Axes
from .circular import NotPeriodicError
from .dit import TorusDiT
from .hooks import SeamlessHooks
from .rolling import Rolling, check_straight
from .unet import CircularUNet

METHODS: dict[str, type[SeamlessHooks]] = {"circular": CircularUNet, "torus_rope": TorusDiT, "rolling": Rolling}


def check_method(method: str, axes: Axes) -> None:
    """Raise ValueError when a method cannot be used on these axes with any model."""
    if method == "rolling":
        check_straight(axes, "The method is rolling")


def choose(model: Any, method: str, axes: Axes, schedule: ScheduleRange) -> tuple[SeamlessHooks, str]:
    """Return the hooks that make a host's MODEL periodic, and what they do in words.

    Args:
        model: it is not changed.
        method: one of `METHODS`, or auto: the exact ones first, rolling where none suits.
        axes: along which axes images repeat.
        schedule: the part of it in which the edges meet.

    Raises:
        ValueError: the method does not suit the model or the tiling, or the model is not a PyTorch network.
    """
    network = describe(model).module
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"The model is a {type(network).__name__}, not a PyTorch network but a compiled engine, which "
            "cannot be made periodic; load the plain model."
        )
    kinds = list(METHODS.values()) if method == "auto" else [METHODS[method]]
    for kind in kinds:
        hooks = kind(axes, schedule)
        try:
            return hooks, hooks.report(model)
        except NotPeriodicError:
            if kind is kinds[-1]:
                raise
    raise AssertionError
