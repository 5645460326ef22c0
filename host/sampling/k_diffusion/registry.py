"""All samplers by name, and the form in which a host calls them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..noise import NoiseSampler
from .denoising import DenoisingRun

Sampler = Callable[..., Tensor]
SAMPLERS: dict[str, Sampler] = {}
"""All samplers by ComfyUI's name, each `f(model, x, sigmas, extra_args, callback, disable, **options)`."""


def sampler(algorithm: Callable[..., Tensor]) -> Sampler:
    """Make a sampler function of `sample_<name>(run, x, sigmas, **options)` and list it in `SAMPLERS`."""

    @functools.wraps(algorithm)
    def sample(
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], None] | None = None,
        disable: bool | None = None,
        noise_sampler: NoiseSampler | None = None,
        **options: Any,
    ) -> Tensor:
        if len(sigmas) <= 1:
            return x
        with torch.no_grad():
            return algorithm(
                DenoisingRun(model, x, sigmas, extra_args or {}, callback, noise_sampler), x, sigmas, **options
            )

    SAMPLERS[algorithm.__name__.removeprefix("sample_")] = sample
    return sample


def variant(name: str, base: Sampler, **defaults: Any) -> Sampler:
    """List a sampler under another name with other defaults."""

    def sample(*args: Any, **kwargs: Any) -> Tensor:
        return base(*args, **{**defaults, **kwargs})

    sample.__name__ = f"sample_{name}"
    SAMPLERS[name] = sample
    return sample
