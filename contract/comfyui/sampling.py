# pyright: reportMissingImports=false
"""Samplers, guiders and what enlarges images, of ComfyUI."""

from __future__ import annotations

from comfy.samplers import KSAMPLER, CFGGuider, sampler_object
from comfy_extras.nodes_custom_sampler import BasicScheduler, SamplerCustom, SamplerCustomAdvanced
from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel

__all__ = [
    "KSAMPLER",
    "BasicScheduler",
    "CFGGuider",
    "ImageUpscaleWithModel",
    "SamplerCustom",
    "SamplerCustomAdvanced",
    "sampler_object",
]
