"""What the pack takes of the host for sampling, when a run needs it: samplers are most of a host's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..patching.model_sampling import sigma_at
from . import sampling_classes

if TYPE_CHECKING:
    from ..host.sampling.samplers import KSAMPLER
    from .protocols import MODEL, Conditioning

Latent = dict[str, Any]
Watch = Callable[[int, Tensor], None]


def sampler_of(function: Callable[..., Tensor], options: Mapping[str, Any]) -> KSAMPLER:
    """Make a SAMPLER of a function that samples as k-diffusion's do.

    Args:
        function: `f(model, x, sigmas, extra_args, callback, disable, **options)`, which returns latents (B, C, ...).
        options: its further arguments.
    """
    return sampling_classes().KSAMPLER(function, dict(options))


def named_sampler(name: str) -> KSAMPLER:
    """Return a sampler of the host by its name in KSampler."""
    return sampling_classes().sampler_object(name)


def spaced_sigmas(model: MODEL, scheduler: str, steps: int, denoise: float) -> Tensor:
    """Return noise levels (steps + 1,) as the node BasicScheduler spaces them."""
    return sampling_classes().BasicScheduler.execute(model, scheduler, steps, denoise)[0]


def enlarge_with(upscale_model: Any, image: Tensor) -> Tensor:
    """Enlarge images (B, H, W, 3) as the node ImageUpscaleWithModel does."""
    return sampling_classes().ImageUpscaleWithModel.execute(upscale_model, image)[0]


def sample_latent(
    model: MODEL,
    sampler: KSAMPLER,
    sigmas: Tensor,
    seed: int,
    cfg: float,
    positive: Conditioning,
    negative: Conditioning,
    latent: Latent,
    add_noise: bool = True,
) -> Latent:
    """Sample a LATENT as the node SamplerCustom does, with its masks, previews and progress."""
    node = sampling_classes().SamplerCustom
    return node.execute(model, add_noise, seed, cfg, positive, negative, sampler, sigmas, latent)[0]


def sample_watched(
    noise: Any, guider: Any, sampler: KSAMPLER, sigmas: Tensor, latent: Latent, watch: Watch
) -> tuple[Latent, Latent]:
    """Sample a LATENT as the node SamplerCustomAdvanced does, with its masks, previews and progress.

    Args:
        watch: called at each step with its number, from 0, and its prediction x0 (B, C, ...) in the model's scale.

    Returns:
        The sampled latent, and the last prediction of it.
    """
    watched: Any = _Watched(guider, watch)
    output = sampling_classes().SamplerCustomAdvanced.execute(noise, watched, sampler, sigmas, latent)
    return output[0], output[1]


def sample_one_step(model: MODEL, positive: Conditioning, noise: Tensor, latent: Tensor, sigma: float) -> Tensor:
    """Run a MODEL once on latents (B, C, H, W) at a noise level, without guidance, and return what it draws."""
    classes = sampling_classes()
    guider = classes.CFGGuider(model)
    guider.inner_set_conds({"positive": positive, "negative": positive})
    return guider.sample(noise, latent, classes.sampler_object("euler"), torch.tensor([sigma, 0.0]), seed=0)


def look_at_noise_level(model: Any, positive: Any, latent: Tensor, percent: float) -> None:
    """Run a MODEL once on latents (B, C, H, W) with noise of seed 0 at a fraction of the schedule (0..1)."""
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    sample_one_step(model, positive, noise, latent, sigma_at(model, percent))


class _Watched:
    """Guider proxy that also reports every step; everything else is delegated."""

    def __init__(self, guider: Any, watch: Watch) -> None:
        self._guider = guider
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guider, name)

    def sample(self, *arguments: Any, callback: Callable[..., None], **options: Any) -> Tensor:
        """Sample with a callback around the host's own."""

        def watched(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
            self._watch(step, x0)
            callback(step, x0, x, total_steps)

        return self._guider.sample(*arguments, callback=watched, **options)
