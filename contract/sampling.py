"""What the pack takes of the host for sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from . import IN_COMFYUI

if TYPE_CHECKING or not IN_COMFYUI:
    from ..host.core_nodes.custom_sampling import SamplerCustom
    from ..host.samplers import KSAMPLER
else:
    from comfy.samplers import KSAMPLER
    from comfy_extras.nodes_custom_sampler import SamplerCustom

__all__ = ["KSAMPLER", "sample_latent"]

Latent = dict[str, Any]


def sample_latent(
    model: Any,
    sampler: KSAMPLER,
    sigmas: Tensor,
    seed: int,
    cfg: float,
    positive: Any,
    negative: Any,
    latent: Latent,
    add_noise: bool = True,
) -> Latent:
    """Sample a LATENT as the node SamplerCustom does, with its masks, previews and progress."""
    return SamplerCustom.execute(model, add_noise, seed, cfg, positive, negative, sampler, sigmas, latent)[0]
