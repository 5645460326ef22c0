"""What image prompts add to a denoiser step, against diffusers' own processors.

Stable Diffusion 1.5's shape at 512 px, a guided batch of two, an adapter of 16 tokens an image. What is the same in
every step (convolutions, self-attention, feed-forward, most norms, projections of pixels, all text but a token) is
taken out of the UNet, so that the difference to a step without images is not lost in it; `--whole` leaves it in, for a
GPU. diffusers runs several adapters, which is its way to a scale each. Each is compared with its own step without
images: the UNet as it is, and with hooks that only call attention. Steps of all kinds take turns in one process; on a
CPU they are cut in front of and behind each cross-attention, the shortest of each piece counts, and time is the
processor's. All this keeps other work on the machine out.

Masks are areas, a rectangle for each image that together fill the image, so that ten act on as many pixels as one
without a mask; or "soft": above 0 everywhere, so that no image can be left out anywhere.

    python benchmarks/ip_adapter.py
"""

from __future__ import annotations

import argparse
import copy
from itertools import pairwise
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from paired import CountingOps, keep_memory, now
from tessera.host.models.attention_hooks import optimized_attention
from tessera.host.models.model_base import SD15
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter import attend, steps
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.hooks import RUN, install
from tessera.ip_adapter.layers import find_layers
from tessera.ip_adapter.reference import ActiveReference, precompute
from tessera.ip_adapter.run import RunMemory
from tessera.patching.wrappers import installed

CHANNELS, LATENT = (320, 640, 1280, 1280), 64
TEXT, TOKENS = 768, 16
COUNTS = (1, 4, 10)
MASK = 512
MASKS = ("", "areas", "soft")
OURS = 4
"""Our steps are shorter, so that more of them can be timed."""


class Through(torch.nn.Module):
    """In place of what is the same in every step: the input with as many channels as go on, or `zero`."""

    def __init__(self, channels: int, zero: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(channels, 0))
        self.channels, self.zero = channels, zero

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> Any:
        if self.zero:
            return torch.zeros((), device=x.device, dtype=x.dtype)
        return x if x.shape[1] == self.channels or x.ndim == 3 else x[:, :1].expand(-1, self.channels, -1, -1)


class Resize(torch.nn.Module):
    """In place of a sampler between levels, without its convolution."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.nn.functional.interpolate(x, scale_factor=self.factor)


def new_unet(whole: bool) -> Any:
    config = {"block_out_channels": CHANNELS, "cross_attention_dim": TEXT, "attention_head_dim": 8}
    with torch.device("cpu" if whole else "meta"):
        unet: Any = UNet2DConditionModel.from_config(config)
    if not whole:
        take_out(unet)
        unet.to_empty(device="cpu")
        for parameter in unet.parameters():
            torch.nn.init.normal_(parameter, std=0.03)
    return unet.eval().requires_grad_(False)


def take_out(unet: Any) -> None:
    """Leave cross-attention alone."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        for i, resnet in enumerate(block.resnets):
            block.resnets[i] = Through(resnet.out_channels)
        for samplers, factor in (("downsamplers", 0.5), ("upsamplers", 2.0)):
            if getattr(block, samplers, None):
                getattr(block, samplers)[0] = Resize(factor)
        for transformer in getattr(block, "attentions", ()):
            transformer.proj_in = transformer.proj_out = Through(transformer.in_channels)
            transformer.norm = torch.nn.Identity()
            for layer in transformer.transformer_blocks:
                layer.norm1, layer.norm3 = torch.nn.Identity(), torch.nn.Identity()
                layer.attn1, layer.ff = Through(0, zero=True), Through(0, zero=True)
                layer.attn2.to_q = layer.attn2.to_out[0] = Through(layer.attn2.to_q.weight.shape[0])


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
    layers = {
        f"{s.number}.to_{part}_ip.weight": 0.02 * torch.randn(s.channels, TEXT)
        for s in find_layers(unet)
        for part in "kv"
    }
    return {"image_proj": image_proj, "ip_adapter": layers}


def masks_of(count: int, kind: str) -> list[torch.Tensor | None]:
    """A mask for each image: its cell of two rows, or random."""
    if kind == "soft":
        return [torch.rand(MASK, MASK) for _ in range(count)]
    if not kind:
        return [None] * count
    rows = 2 if count % 2 == 0 else 1
    columns = count // rows
    masks: list[torch.Tensor | None] = []
    for i in range(count):
        top, left = (i // columns * MASK // rows, i % columns * MASK // columns)
        mask = torch.zeros(MASK, MASK)
        mask[top : top + MASK // rows, left : (i % columns + 1) * MASK // columns] = 1
        masks.append(mask)
    return masks


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
    return optimized_attention(q, k, v, extra["n_heads"])


class Ours:
    """A MODEL with image prompts, called as a sampler calls it."""

    def __init__(self, unet: Any, weights: dict[str, Any], count: int, kind: str = "") -> None:
        adapter = parse_adapter(weights, "random")
        found = precompute(torch.randn(count, 2, TOKENS, TEXT), adapter, adapter.layers) if count else []
        references = [
            ActiveReference(each, dict.fromkeys(each, 0.5), mask=mask)
            for each, mask in zip(found, masks_of(count, kind), strict=True)
        ]
        model = ModelPatcher(SD15(unet), "cpu", "cpu")
        self.unet, self.memory, self.count = unet, None, count
        if count:
            model = install(model, references, optimized_attention, find_layers(unet))
            self.memory = RunMemory.begin(installed(model, "tessera_image_prompts").kept, (LATENT, LATENT))
        else:
            for layer in find_layers(unet):
                model.set_model_attn2_replace(plain_attention, *layer.key)
        self.model = model

    def __call__(self, x: torch.Tensor, text: torch.Tensor) -> None:
        options = {**self.model.model_options["transformer_options"], "wrappers": self.model.wrappers}
        options |= {RUN: self.memory} if self.memory else {}
        sigma = torch.ones(len(x), device=x.device)
        self.model.model.apply_model(
            x, sigma, c_crossattn=text, transformer_options=options | {"cond_or_uncond": [1, 0]}
        )

    def held(self) -> int:
        """Bytes of keys and values that are kept from step to step."""
        return self.memory.held() if self.memory else 0

    def own(self) -> int:
        """Bytes of the keys and values of its images: two rows at each layer."""
        channels = sum(layer.channels for layer in find_layers(self.unet))
        return self.count * TOKENS * channels * 2 * 2 * next(self.unet.parameters()).element_size()


def operations(steps_: dict[str, Any], batch: int) -> dict[str, int]:
    """Operations of each kind of step on a GPU's path, which this device takes for it, beyond one without images."""
    saved = attend.LARGEST, attend.UNFUSED, steps.AREAS
    attend.LARGEST, attend.UNFUSED, steps.AREAS = attend.LARGEST_ELSEWHERE, "none", "none"
    try:
        found = {}
        for name in ("ours 0 ", "ours 1 ", "ours 10 "):
            unet = steps_[name].unet
            x, text = (
                torch.randn(shape).to(unet.device, unet.dtype)
                for shape in ((2 * batch, 4, LATENT, LATENT), (2 * batch, 1, TEXT))
            )
            steps_[name](x, text)
            with CountingOps() as counted:
                steps_[name](x, text)
            found[name] = counted.count
    finally:
        attend.LARGEST, attend.UNFUSED, steps.AREAS = saved
    return {name: count - found["ours 0 "] for name, count in found.items()}


class Diffusers:
    """The same UNet with diffusers' processors, an adapter for each image."""

    def __init__(self, unet: Any, kind: str = "") -> None:
        self.unet = unet
        self.count = len(unet.encoder_hid_proj.image_projection_layers) if unet.encoder_hid_proj else 0
        at = {"device": unet.device, "dtype": unet.dtype}
        self.seen = [torch.randn(2, 1, 257, 1280, **at) for _ in range(self.count)]
        masks = [mask[None, None].to(**at) for mask in masks_of(self.count, kind) if mask is not None]
        self.kwargs = {"cross_attention_kwargs": {"ip_adapter_masks": masks}} if masks else {}

    def __call__(self, x: torch.Tensor, text: torch.Tensor) -> None:
        self.unet(x, 500, text, added_cond_kwargs={"image_embeds": self.seen}, **self.kwargs)


def with_adapters(unet: Any, weights: dict[str, Any], count: int) -> Any:
    """A copy of a UNet with diffusers' own IP-Adapter, loaded so many times."""
    copied = copy.deepcopy(unet)
    copied._load_ip_adapter_weights([weights] * count, low_cpu_mem_usage=True)
    return copied.to(unet.device, unet.dtype).eval()


def measure(steps: dict[str, Any], rounds: int, x: torch.Tensor, text: torch.Tensor) -> dict[str, float]:
    """Milliseconds that each kind of step adds to its own without images: between the shortest of rounds of all."""
    device = x.device.type
    times: dict[str, list[list[float]]] = {name: [] for name in steps}
    marks: list[float] = []
    if device == "cpu":
        cut(steps, marks)
    for step in steps.values():
        step(x, text)
    for turn in range(OURS * rounds):
        for name, taken in times.items():
            if name.startswith("ours") or name == "diffusers 0 " or turn < rounds:
                marks[:] = [now(device)]
                steps[name](x, text)
                taken.append([end - start for start, end in pairwise([*marks, now(device)])])
    shortest = {name: 1000 * sum(map(min, zip(*taken, strict=True))) for name, taken in times.items()}
    return {name: taken - shortest[f"{name.split()[0]} 0 "] for name, taken in shortest.items()}


def cut(steps: dict[str, Any], marks: list[float]) -> None:
    """Note the time in front of and behind each cross-attention."""
    for unet in {id(step.unet): step.unet for step in steps.values()}.values():
        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                module.register_forward_pre_hook(lambda *_: marks.append(now("cpu")))
                module.register_forward_hook(lambda *_: marks.append(now("cpu")))


def report(added: dict[str, float], steps: dict[str, Any], adapter: int) -> None:
    """Print the table and every budget."""
    print("a step with images adds, in ms")
    for kind in MASKS:
        for count in COUNTS:
            ours, theirs = added[f"ours {count} {kind}"], added[f"diffusers {count} {kind and 'areas'}"]
            what = f"{count} images" + (f", {kind}" if kind else "")
            print(f"  {what:18} ours {ours:8.1f}   diffusers {theirs:8.1f}   ratio {ours / theirs:.2f}")
    print(f"10 images with areas / 1 image: {added['ours 10 areas'] / added['ours 1 ']:.2f}, budget 2")
    print(f"10 images with areas / 1 image with an area: {added['ours 10 areas'] / added['ours 1 areas']:.2f}")
    print(f"10 images with soft masks / 1 image: {added['ours 10 soft'] / added['ours 1 ']:.2f}")
    for kind in MASKS:
        ratio = added[f"ours 4 {kind}"] / added[f"diffusers 4 {kind and 'areas'}"]
        print(f"4 images{kind and ', ' + kind}, ours / diffusers: {ratio:.2f}, budget 0.33")
    for batch in (1, 16):
        ops = operations(steps, batch)
        ratio = ops["ours 10 "] / ops["ours 1 "]
        print(f"operations added by 10 images / by 1, batch {batch}: {ratio:.2f}, budget 1.05")
        for count in COUNTS:
            held, own = steps[f"ours {count} "].held(), steps[f"ours {count} "].own()
            print(f"kept / keys and values of {count} images, batch {batch}: {held / own:.2f}, budget 1.05")
    for count in COUNTS:
        print(f"kept / the adapter's own size, {count} images: {steps[f'ours {count} '].held() / adapter:.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="the whole UNet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    keep_memory()
    unet = new_unet(args.whole)
    weights = adapter_weights(unet)
    dtype = torch.float16 if args.device == "cuda" else torch.float32
    unet.to(args.device, dtype)
    x, text = (
        torch.randn(shape).to(args.device, dtype)
        for shape in ((2, 4, LATENT, LATENT), (2, 77 if args.whole else 1, TEXT))
    )
    steps: dict[str, Any] = {"ours 0 ": Ours(unet, weights, 0), "diffusers 0 ": Diffusers(unet)}
    for kind in MASKS:
        for count in COUNTS:
            steps[f"ours {count} {kind}"] = Ours(unet, weights, count, kind)
    for count in COUNTS:
        theirs = with_adapters(unet, weights, count)
        for kind in ("", "areas"):  # soft masks cost it the same
            steps[f"diffusers {count} {kind}"] = Diffusers(theirs, kind)
    added = measure(steps, args.rounds, x, text)
    report(added, steps, sum(t.nbytes for part in weights.values() for t in part.values()))


if __name__ == "__main__":
    main()
