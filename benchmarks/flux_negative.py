"""What a negative prompt costs Flux: work and time of a guided step over those of a plain one.

Budget of nag: 1.30 at 1024 px; 1.00 at strength 0. Work is counted for the whole of Flux.1; time is that of one double
and one single block of its width. Steps alternate in one process, so that load on the machine falls on all; a ratio is
the median over rounds.

    python benchmarks/flux_negative.py
    python benchmarks/flux_negative.py --timed 512    smaller images for a machine without a GPU
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from tessera.guidance.flux_negative import JoinedAttention
from tessera.host.models.model_base import Flux
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.guiders import CFGGuider
from tessera.host.sampling.samplers import sampler_object
from tessera.nodes.flux_negative import TesseraFluxNegative
from torch.utils.flop_counter import FlopCounterMode

BUDGETS = {"strength 0": 1.00, "nag": 1.30, "cfg": 2.0}
TEXT, POOLED, TOKENS = 4096, 768, 256


def latents(size: int) -> torch.Tensor:
    """Return noise for an image of `size` px."""
    return torch.randn(1, 16, size // 8, size // 8)


def conditioning() -> list[list[Any]]:
    """A random text of ComfyUI's length for Flux."""
    return [[torch.randn(1, TOKENS, TEXT), {"pooled_output": torch.randn(1, POOLED)}]]


def work(size: int, negative: int, **config: int) -> int:
    """Operations of one forward of Flux.1 with so many negative tokens, on tensors without storage."""
    with torch.device("meta"):
        transformer: Any = FluxTransformer2DModel.from_config({"guidance_embeds": True, **config})
        text, ones = torch.empty(1, TOKENS + negative, TEXT), torch.ones(1)
        arguments = latents(size), ones, text, torch.empty(1, POOLED), ones
    options = JoinedAttention({}, negative, 4.0).installed({}) if negative else {}
    with FlopCounterMode(display=False) as counter:
        Flux(transformer).forward_transformer(*arguments, transformer_options=options)
    return counter.get_total_flops()


def variants(device: str) -> dict[str, Any]:
    """A model of two blocks, plain and with each kind of negative."""
    config = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True}
    transformer: Any = FluxTransformer2DModel.from_config(config)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32  # attention of CPUs is slow in bfloat16
    plain = ModelPatcher(Flux(transformer.to(device, dtype)), device, device)
    negative = conditioning()
    methods = {"strength 0": (0.0, "auto"), "nag": (4.0, "nag"), "cfg": (4.0, "cfg")}
    return {"plain": plain} | {
        name: TesseraFluxNegative.execute(plain, negative, *kind, 0.0, 1.0).args[0] for name, kind in methods.items()
    }


def step_seconds(model: Any, positive: list[list[Any]], latent: torch.Tensor) -> float:
    """Seconds of a run of one step; on a CPU those of the process, which other load does not lengthen."""
    guider = CFGGuider(model)
    guider.inner_set_conds({"positive": positive})
    sigmas, sampler = torch.tensor([1.0, 0.9]), sampler_object("euler")
    clock = time.perf_counter if model.load_device.type == "cuda" else time.process_time
    start = clock()
    guider.sample(latent, torch.zeros_like(latent), sampler, sigmas, disable_pbar=True, seed=0).sum().item()
    return clock() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="px, for the work")
    parser.add_argument("--timed", type=int, default=1024, help="px, for the time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    plain, nag = work(args.size, 0), work(args.size, TOKENS)
    amounts = {"strength 0": plain, "nag": nag, "cfg": 2 * plain}
    print(f"Flux.1, {args.size} px: {plain / 1e12:.1f} tera operations a plain step")
    models, positive, latent = variants(args.device), conditioning(), latents(args.timed)
    rounds = [
        {name: step_seconds(model, positive, latent) for name, model in models.items()} for _ in range(args.rounds + 1)
    ][1:]  # the first warms up
    seconds = statistics.median(each["plain"] for each in rounds)
    print(f"two blocks, {args.timed} px, {args.device}: {seconds:.3f} s a plain step")
    for name, budget in BUDGETS.items():
        ratio = statistics.median(each[name] / each["plain"] for each in rounds)
        print(f"{name:10} work {amounts[name] / plain:.3f}, time {ratio:.3f}, budget {budget:.2f}")


if __name__ == "__main__":
    main()
