"""Samplers, guiders and what enlarges images, of the embedded host."""

from __future__ import annotations

from ...host.nodes.custom_sampling import BasicScheduler, SamplerCustom, SamplerCustomAdvanced
from ...host.nodes.upscale import ImageUpscaleWithModel
from ...host.sampling.guiders import CFGGuider
from ...host.sampling.samplers import KSAMPLER, sampler_object

__all__ = [
    "KSAMPLER",
    "BasicScheduler",
    "CFGGuider",
    "ImageUpscaleWithModel",
    "SamplerCustom",
    "SamplerCustomAdvanced",
    "sampler_object",
]
