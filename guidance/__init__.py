"""Steering away from a negative prompt: formulas for tensors of any model, and a negative prompt for Flux.

Examples:
    >>> import torch, tessera
    >>> tessera.guidance.cfg(torch.tensor([2.0]), torch.tensor([1.0]), strength=3.0)
    tensor([5.])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .formulas import Sequence, cfg, joint_nag, nag, soft_cfg

__all__ = ["Sequence", "cfg", "joint_nag", "nag", "soft_cfg"]


def __getattr__(name: str) -> Any:
    """Return a public name; its module is imported when the first one is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import formulas

    return vars(formulas)[name]
