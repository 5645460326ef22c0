"""Images of the steps: a sampler in its parts, of which the last one keeps what the model saw at each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .graph_layout import LaidOutGraph, Node, Output

ROLE, PREFIX = "intermediate images", "tessera_steps"


def sample(graph: LaidOutGraph, role: str, inputs: Mapping[str, Any]) -> Output:
    """Draw what KSampler, or KSampler (diffusers), makes of these inputs: the same latents, to the bit."""
    noise = graph.add("noise", "RandomNoise", noise_seed=inputs["seed"])
    guided = {name: inputs[name] for name in ("model", "positive", "negative", "cfg")}
    guider = graph.add("guider", "CFGGuider", **guided)
    sampler, sigmas = _method(graph, inputs)
    parts = {"noise": noise[0], "guider": guider[0], "sampler": sampler, "sigmas": sigmas}
    return graph.add(role, "TesseraSampleSteps", **parts, latent_image=inputs["latent_image"])[0]


def _method(graph: LaidOutGraph, inputs: Mapping[str, Any]) -> tuple[Output, Output]:
    levels = {name: inputs[name] for name in ("model", "scheduler", "steps", "denoise")}
    if "sampler_name" in inputs:
        method = graph.add("method", "KSamplerSelect", sampler_name=inputs["sampler_name"])
        return method[0], graph.add("schedule", "BasicScheduler", **levels)[0]
    own = {name: inputs[name] for name in ("spacing", "algorithm_type") if name in inputs}
    schedule = graph.add("schedule", "TesseraScheduler", **levels, **own)
    return schedule[0], schedule[1]


def decode(graph: LaidOutGraph, sampler: Node, vae: Output) -> Output:
    """The images of the steps that `sample` draws, step by step."""
    return graph.add("decode steps", "VAEDecode", samples=sampler[2], vae=vae)[0]
