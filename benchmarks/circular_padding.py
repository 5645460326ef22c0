"""What wrapping costs a convolution and a VAE decoder, over zeros: padding in one call, which is ours; padding in two
calls, as other packs do it; zeros whose outermost ring is recomputed, which is ours for large images on a CPU.

Calls alternate in one process; the median ratio of all rounds counts. On a CPU its time counts, not that of the clock.

    python benchmarks/circular_padding.py [--channels-last]

On a CPU (fp32, one thread, torch 2.13), over zeros:

                            one call    two calls    ring
    640 channels, 16 x 16     1.07        1.07       1.92
    320 channels, 64 x 64     1.10        1.12       1.21
    128 channels, 128 x 128   1.04        1.08       1.17
     64 channels, 256 x 256   1.04        1.15       1.08
     32 channels, 512 x 512   1.35        1.52       1.02
    128 channels, 512 x 512   1.09        1.25       1.02

The values of a ring differ by 1e-6 from those of padding: the strips are so small that the CPU sums in another order.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import inf
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from tessera.tiling import circular as circular_module
from tessera.tiling.axes import TILINGS
from tessera.tiling.circular import circular, wrapping_convolutions
from tessera.tiling.swap import swapped
from torch import Tensor, nn
from torch.nn import functional as F

SHAPES = {
    "16 x 16, 640 channels": (640, 16),
    "64 x 64, 320 channels": (320, 64),
    "128 x 128, 128 channels": (128, 128),
    "256 x 256, 64 channels": (64, 256),
    "512 x 512, 32 channels": (32, 512),
}
VAE = {"block_out_channels": (64, 128, 256, 256), "layers_per_block": 1}


def two_calls(network: nn.Module) -> AbstractContextManager[None]:
    """Each axis padded in a call of its own, then a convolution without padding."""

    def forward(conv: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        left, right, top, bottom = conv._reversed_padding_repeated_twice
        x = F.pad(F.pad(x, (left, right, 0, 0), mode="circular"), (0, 0, top, bottom), mode="circular")
        return F.conv2d(x, weight, bias, conv.stride, 0, conv.dilation, conv.groups)

    borders = [border for border in wrapping_convolutions(network) if not border.there]
    return swapped("_conv_forward", [(border.conv, partial(forward, border.conv)) for border in borders])


@contextmanager
def ring_from(pixels: float, network: nn.Module) -> Iterator[None]:
    """Ours, with rings computed anew from so many px."""
    before = circular_module.RING
    setattr(circular_module, "RING", pixels)  # noqa: B010
    try:
        with circular(network, TILINGS["both"]):
            yield
    finally:
        setattr(circular_module, "RING", before)  # noqa: B010


def compare(name: str, network: nn.Module, run: Callable[[], Any], device: str, rounds: int) -> None:
    """Print the ratios of all forms to plain zeros."""
    forms = {
        "plain": nullcontext,
        "ours": lambda: circular(network, TILINGS["both"]),
        "one call": lambda: ring_from(inf, network),
        "two calls": lambda: two_calls(network),
        "ring": lambda: ring_from(0, network),
    }
    clock = time.perf_counter if device == "cuda" else time.process_time
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    spent: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(rounds + 1):
        for form, context in forms.items():
            synchronize()
            start = clock()
            with context():
                run()
            synchronize()
            spent[form].append(clock() - start)
    plain = spent.pop("plain")[1:]
    found = (
        f"{form} {statistics.median(a / b for a, b in zip(times[1:], plain, strict=True)):.3f}"
        for form, times in spent.items()
    )
    print(f"{name}: {', '.join(found)} (plain {statistics.median(plain) * 1000:.1f} ms)", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--channels-last", action="store_true", help="lay weights and images out as GPUs prefer")
    args = parser.parse_args()
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float16 if args.device == "cuda" else torch.float32)
    with torch.device(args.device):
        for name, (channels, size) in SHAPES.items():
            conv: Any = nn.Conv2d(channels, channels, 3, padding=1)
            x = torch.randn(1, channels, size, size)
            conv, x = conv.to(memory_format=layout), x.to(memory_format=layout)
            compare(f"convolution, {name}", conv, partial(conv, x), args.device, args.rounds)
        kinds = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
        vae: Any = AutoencoderKL.from_config({**VAE, **kinds})
        vae, latent = vae.to(memory_format=layout), torch.randn(1, 4, 16, 16).to(memory_format=layout)
        compare("VAE decode, 128 px", vae.decoder, partial(vae.decode, latent), args.device, args.rounds)


if __name__ == "__main__":
    main()
