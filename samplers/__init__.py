"""Sampling: diffusers' schedulers for models of any host, in diffusers pipelines, and around plain denoisers.

Examples:
    >>> import tessera
    >>> len(tessera.samplers.NAMES)
    25
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..patching.model_sampling import NoiseSchedule
    from .pipeline import PipelineScheduler, noise_schedule_of, sample, scheduler
    from .plan import Plan, plan
    from .registry import NAMES

__all__ = [
    "NAMES",
    "NoiseSchedule",
    "PipelineScheduler",
    "Plan",
    "noise_schedule_of",
    "plan",
    "sample",
    "scheduler",
]


def __getattr__(name: str) -> Any:
    """Return a public name; its module is imported when the first one is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pipeline, plan, registry

    return next(vars(module)[name] for module in (pipeline, plan, registry) if name in vars(module))
