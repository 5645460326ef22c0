# pyright: reportMissingImports=false
"""Samplers and guiders of ComfyUI."""

from __future__ import annotations

from comfy.samplers import KSAMPLER, CFGGuider, sampler_object
from comfy_extras.nodes_custom_sampler import SamplerCustom, SamplerCustomAdvanced

__all__ = ["KSAMPLER", "CFGGuider", "SamplerCustom", "SamplerCustomAdvanced", "sampler_object"]
