"""What image prompts add to a denoiser step, against diffusers' own processors.

Budgets: the work that 10 masked images add over that of 1 image: 2; the work that 4 images add over what they add with
diffusers' processors, as several adapters, which is its way to a scale each: 0.33. Steps of all kinds take turns in one
process on one random UNet, so that load on the machine falls on all of them.

    python benchmarks/ip_adapter.py               narrower, for a first look
    python benchmarks/ip_adapter.py --size full   Stable Diffusion 1.5's shape, 512 px, guided batch of two
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from tessera.host.attention import optimized_attention
from tessera.host.model_base import SD15
from tessera.host.patcher import ModelPatcher
from tessera.host.patcher_extension import WrappersMP
from tessera.ip_adapter.bank import bake
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.hooks import RUN, Run, Stack, Use, install
from tessera.ip_adapter.sites import find_sites

SIZES = {"small": ((96, 192, 320, 320), 32), "full": ((320, 640, 1280, 1280), 64)}
TEXT, TOKENS = 768, 16
COUNTS = (1, 4, 10)
MASK = 512


def new_unet(size: str) -> Any:
    config = {"block_out_channels": SIZES[size][0], "cross_attention_dim": TEXT, "attention_head_dim": 8}
    unet: Any = UNet2DConditionModel.from_config(config)
    return unet.eval().requires_grad_(False)


def adapter_weights(unet: Any) -> dict[str, dict[str, torch.Tensor]]:
    """A random plus adapter: 16 tokens an image, as in the most used files."""
    inner, patch = 768, 1280
    image_proj = {"latents": torch.randn(1, TOKENS, inner)}
    shapes = {"proj_in": (inner, patch), "proj_out": (TEXT, inner)}
    for i in range(4):
        attention = {"0.to_q": (inner, inner), "0.to_kv": (2 * inner, inner), "0.to_out": (inner, inner)}
        wide = {"1.1": (4 * inner, inner), "1.3": (inner, 4 * inner)}
        shapes |= {f"layers.{i}.{name}": shape for name, shape in (attention | wide).items()}
        for norm in ("0.norm1", "0.norm2", "1.0"):
            image_proj |= {
                f"layers.{i}.{norm}.weight": torch.ones(inner),
                f"layers.{i}.{norm}.bias": torch.zeros(inner),
            }
    image_proj |= {f"{name}.weight": 0.02 * torch.randn(shape) for name, shape in shapes.items()}
    image_proj |= {f"{name}.bias": torch.zeros(shapes[name][0]) for name in ("proj_in", "proj_out")}
    image_proj |= {"norm_out.weight": torch.ones(TEXT), "norm_out.bias": torch.zeros(TEXT)}
    sites = {
        f"{s.number}.to_{part}_ip.weight": 0.02 * torch.randn(s.channels, TEXT)
        for s in find_sites(unet)
        for part in "kv"
    }
    return {"image_proj": image_proj, "ip_adapter": sites}


class Ours:
    """A MODEL with image prompts, called as a sampler calls it."""

    def __init__(self, unet: Any, weights: dict[str, Any], count: int, masked: bool) -> None:
        adapter = parse_adapter(weights, "random")
        tokens = torch.randn(count, 2, TOKENS, TEXT)
        uses = []
        for i in range(count):
            mask = torch.rand(MASK, MASK) if masked else None
            reference = bake(tokens[i, 0], tokens[i, 1], adapter, adapter.sites)
            uses.append(Use(reference, 0.5, {"": 1.0}, mask=mask))
        self.held = sum(t.nbytes for use in uses for pair in use.reference.pairs.values() for t in pair)
        model = ModelPatcher(SD15(unet), "cpu", "cpu")
        if count:
            kinds = (WrappersMP.OUTER_SAMPLE, WrappersMP.APPLY_MODEL)
            model = install(model, Stack(tuple(uses), "sum"), optimized_attention, *kinds)
        self.model, self.run = model, Run()

    def __call__(self, x: torch.Tensor, text: torch.Tensor) -> None:
        options = {**self.model.model_options["transformer_options"], "wrappers": self.model.wrappers, RUN: self.run}
        sigma = torch.ones(2, device=x.device)
        self.model.model.apply_model(
            x, sigma, c_crossattn=text, transformer_options=options | {"cond_or_uncond": [1, 0]}
        )


class Diffusers:
    """The same UNet with diffusers' processors, an adapter for each image."""

    def __init__(self, unet: Any, weights: dict[str, Any], count: int, masked: bool) -> None:
        self.unet: Any = UNet2DConditionModel.from_config(dict(unet.config))
        self.unet.load_state_dict(unet.state_dict())
        self.unet._load_ip_adapter_weights([weights] * count, low_cpu_mem_usage=False)
        self.unet.to(unet.device, unet.dtype).eval()
        at = {"device": unet.device, "dtype": unet.dtype}
        self.seen = [torch.randn(2, 1, 257, 1280, **at) for _ in range(count)]
        masks = [torch.rand(1, 1, MASK, MASK, **at) for _ in range(count)] if masked else None
        self.kwargs = {"cross_attention_kwargs": {"ip_adapter_masks": masks}} if masks else {}

    def __call__(self, x: torch.Tensor, text: torch.Tensor) -> None:
        self.unet(x, 500, text, added_cond_kwargs={"image_embeds": self.seen}, **self.kwargs)


def seconds(step: Any, x: torch.Tensor, text: torch.Tensor) -> float:
    synchronize = torch.cuda.synchronize if x.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    step(x, text)
    synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    unet = new_unet(args.size)
    weights = adapter_weights(unet)
    dtype = torch.float16 if args.device == "cuda" else torch.float32
    unet.to(args.device, dtype)
    x, text = (
        torch.randn(shape).to(args.device, dtype) for shape in ((2, 4, *2 * SIZES[args.size][1:]), (2, 77, TEXT))
    )
    steps: dict[str, Any] = {"plain": Ours(unet, weights, 0, False)}
    for count in COUNTS:
        for masked in (False, True):
            steps[f"ours {count}{' masked' * masked}"] = Ours(unet, weights, count, masked)
    steps["diffusers 4"] = Diffusers(unet, weights, 4, False)
    steps["diffusers 4 masked"] = Diffusers(unet, weights, 4, True)
    for step in steps.values():
        seconds(step, x, text)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            times[name].append(seconds(step, x, text))
    added = {n: statistics.median(a - p for a, p in zip(t, times["plain"], strict=True)) for n, t in times.items()}
    print(f"{args.size} {args.device}: plain step {statistics.median(times['plain']):.3f} s; added by")
    for name, value in added.items():
        if name != "plain":
            print(f"  {name:20} {1000 * value:8.1f} ms")
    print(f"10 masked / 1: {added['ours 10 masked'] / added['ours 1']:.2f}, budget 2")
    print(f"4, ours / diffusers: {added['ours 4'] / added['diffusers 4']:.2f}, budget 0.33")
    print(f"4 masked, ours / diffusers: {added['ours 4 masked'] / added['diffusers 4 masked']:.2f}")
    adapter = sum(t.nbytes for part in weights.values() for t in part.values())
    print(f"held while sampling, 4 images: {steps['ours 4'].held / adapter:.3f} of the adapter")


if __name__ == "__main__":
    main()
