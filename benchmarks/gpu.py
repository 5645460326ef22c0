"""One table of what the pack adds to a step: time, memory, operations and waits of the device.

Random weights in the shapes of SD 1.5, SDXL and two blocks of Flux.1, at 1024 px in fp16 and bf16 on a GPU; `--small`
runs everything in a minute on a CPU. Steps with and without a hook take turns in one process; a ratio is the median
over rounds. Waits are those that CUDA reports inside a step that is not the first of its run.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --small
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from paired import CountingOps, compare
from tessera.guidance import flux_negative
from tessera.host.models.attention_hooks import optimized_attention
from tessera.host.models.model_base import SD15, Flux
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter.hooks import KEY, RUN, install
from tessera.ip_adapter.layers import find_layers
from tessera.ip_adapter.reference import ActiveReference
from tessera.ip_adapter.run import RunMemory
from tessera.nodes.flux_negative import TesseraFluxNegative
from tessera.nodes.seamless import TesseraSeamlessModel
from tessera.patching.wrappers import installed
from tessera.tiling.hooks import PERIOD, SEED

SHAPES: dict[str, dict[str, Any]] = {
    "SD 1.5": {"block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768},
    "SDXL": {
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
    },
}
SMALL = {
    "SD 1.5": {
        "block_out_channels": [32, 32, 64, 64],
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
        "layers_per_block": 1,
    }
}
FLUX = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True}
SMALL_FLUX = {
    **FLUX,
    "in_channels": 64,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 16,
    "pooled_projection_dim": 24,
    "axes_dims_rope": [4, 6, 6],
}
BUDGETS = {"seamless": 1.10, "1 image": None, "10 images": None, "negative": 1.30}
TOKENS = 16
Call = Callable[[], Any]


def with_images(model: Any, count: int, size: tuple[int, int]) -> tuple[Any, dict[str, Any]]:
    """Random references of 16 tokens."""
    layers = find_layers(model.model.diffusion_model)
    references = [
        ActiveReference(
            {layer.number: torch.randn(2, 2, TOKENS, layer.channels).unbind() for layer in layers},
            dict.fromkeys((layer.number for layer in layers), 0.5),
        )
        for _ in range(count)
    ]
    applied = install(model, references, optimized_attention, layers)
    return applied, {RUN: RunMemory.begin(installed(applied, KEY).kept, size)}


def calls(small: bool, device: str, dtype: torch.dtype, batch: int) -> Iterator[tuple[str, str, Call, Call]]:
    """Yield shape, hook, and a step without and with it."""
    side = 16 if small else 128
    at = {"device": device, "dtype": dtype}
    for shape, config in (SMALL if small else SHAPES).items():
        unet: Any = UNet2DConditionModel.from_config(config)
        model = ModelPatcher(SD15(unet.to(**at)), device, device)
        x, text = (
            torch.randn(s, **at) for s in ((2 * batch, 4, side, side), (2 * batch, 77, config["cross_attention_dim"]))
        )
        inputs = {"x": x, "t": torch.ones(2 * batch, device=device), "c_crossattn": text}
        seamless = TesseraSeamlessModel.execute(model, "both", 0.0, 1.0, "circular").args[0]
        hooked = {"seamless": (seamless, {PERIOD: (side, side), SEED: 0})}
        hooked |= {f"{n} image{'s' * (n > 1)}": with_images(model, n, (side, side)) for n in (1, 10)}
        for name, (patched, options) in hooked.items():
            yield shape, name, step(model, inputs, {}), step(patched, inputs, options)
    config = SMALL_FLUX if small else FLUX
    transformer: Any = FluxTransformer2DModel.from_config(config)
    model = ModelPatcher(Flux(transformer.to(**at)), device, device)
    width, pooled = transformer.config.joint_attention_dim, transformer.config.pooled_projection_dim
    shapes = {"x": (batch, 16, side, side), "c_crossattn": (batch, 256, width), "y": (batch, pooled)}
    inputs = {name: torch.randn(s, **at) for name, s in shapes.items()}
    inputs |= {"t": torch.full((batch,), 0.5, device=device), "guidance": torch.full((batch,), 3.5, **at)}
    text = [[torch.randn(1, 256, width), {"pooled_output": torch.randn(1, pooled)}]]
    negative = TesseraFluxNegative.execute(model, text, 3.0, "nag").args[0]
    state = flux_negative.RunState(torch.randn(1, 256, width, **at))
    yield "Flux.1, 2 blocks", "negative", step(model, inputs, {}), step(negative, inputs, {flux_negative.KEY: state})


def step(model: Any, inputs: dict[str, Any], options: dict[str, Any]) -> Call:
    """A call of the denoiser as a sampler makes it."""
    rows = [0] if isinstance(model.model, Flux) else [1, 0]
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers, "cond_or_uncond": rows, **options}
    return lambda: model.model.apply_model(**inputs, transformer_options=to)


def waits(run: Call, device: str) -> int | None:
    """Waits that CUDA reports."""
    if device != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            run()
        return sum("synchroniz" in str(each.message) for each in found)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def peak(run: Call, device: str) -> float | None:
    """Megabytes at most while it runs."""
    if device != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() / 2**20


def operations(run: Call) -> int:
    """Operations of a call."""
    with CountingOps() as counted:
        run()
    return counted.count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small networks, for a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the table there as well")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    gpu = args.device == "cuda"
    table = []
    for dtype in (torch.float16, torch.bfloat16) if gpu else (torch.float32,):
        for batch in (1, 4, 16) if not args.small else (1,):
            for shape, hook, plain, ours in calls(args.small, args.device, dtype, batch):
                before, after, ratio = compare(plain, ours, args.device, args.rounds)
                added = operations(ours) - operations(plain)
                row = {"shape": shape, "hook": hook, "dtype": str(dtype).removeprefix("torch."), "batch": batch}
                row |= {"plain ms": 1000 * before, "ours ms": 1000 * after, "ratio": ratio, "budget": BUDGETS[hook]}
                row |= {"ops added": added, "waits": waits(ours, args.device), "peak MB": peak(ours, args.device)}
                table.append(row)
    print(f"{torch.cuda.get_device_name() if gpu else 'CPU'}, torch {torch.__version__}\n")
    print("| " + " | ".join(table[0]) + " |\n" + "|---" * len(table[0]) + "|")
    for row in table:
        cells = ("-" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values())
        print("| " + " | ".join(cells) + " |")
    if args.json:
        args.json.write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
