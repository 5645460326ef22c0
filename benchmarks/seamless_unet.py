"""What circular convolutions cost: the time of a seamless UNet step over that of a plain one. Budget: 1.10.

Steps alternate in one process on one random UNet, so that load on the machine falls on both; the ratio is the median
over pairs of one plain and one seamless step.

    python benchmarks/seamless_unet.py               narrower, for a first look
    python benchmarks/seamless_unet.py --size full   Stable Diffusion 1.5's shape, 512 px, guided batch of two
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from paired import compare
from tessera.tiling.axes import TILINGS
from tessera.tiling.circular import circular

BUDGET = 1.10
WIDTHS = {"small": (96, 192, 320, 320), "full": (320, 640, 1280, 1280)}
LATENT = 64
TEXT = 768


def step(unet: Any, x: torch.Tensor, text: torch.Tensor, seamless: bool) -> None:
    """One denoiser call, the hooks' coming and going included."""
    with circular(unet, TILINGS["both"]) if seamless else nullcontext():
        unet(x, 500, text)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(WIDTHS), default="small")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    dtype = torch.float16 if args.device == "cuda" else torch.float32
    torch.set_grad_enabled(False)
    with torch.device(args.device):
        config = {"block_out_channels": WIDTHS[args.size], "cross_attention_dim": TEXT, "attention_head_dim": 8}
        unet: Any = UNet2DConditionModel.from_config(config)
        unet.to(dtype)
        x = torch.randn(2, 4, LATENT, LATENT, dtype=dtype)
        text = torch.randn(2, 77, TEXT, dtype=dtype)
    runs = [partial(step, unet, x, text, seamless) for seamless in (False, True)]
    plain, seamless, ratio = compare(runs[0], runs[1], args.device, args.pairs)
    print(f"{args.size} {args.device}: plain {plain:.3f} s, seamless {seamless:.3f} s")
    print(f"ratio {ratio:.3f}, budget {BUDGET}")


if __name__ == "__main__":
    main()
