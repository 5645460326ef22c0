"""Samplers and guiders of the embedded host."""

from __future__ import annotations

from ...host.nodes.custom_sampling import SamplerCustom, SamplerCustomAdvanced
from ...host.sampling.guiders import CFGGuider
from ...host.sampling.samplers import KSAMPLER, sampler_object

__all__ = ["KSAMPLER", "CFGGuider", "SamplerCustom", "SamplerCustomAdvanced", "sampler_object"]
