"""What torus RoPE costs: the time of a seamless Flux step over that of a plain one. Budget: 1.02.

Steps alternate in one process on one random transformer, so that load on the machine falls on both; the ratio is the
median over pairs of one plain and one seamless step. The seamless one is one in which the latents move by half a token.

    python benchmarks/seamless_flux.py               a tenth as deep and a quarter as wide, 512 px, for a first look
    python benchmarks/seamless_flux.py --size full   Flux.1's shape, 1024 px (24 GB)
"""

from __future__ import annotations

import argparse
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from paired import compare
from tessera.host.models.patches import patchify
from tessera.patching.calls import DenoiserCall
from tessera.tiling.axes import TILINGS
from tessera.tiling.dit import TorusDiT

BUDGET = 1.02
SIZES = {"small": (2, 4, 6, 64), "full": (19, 38, 24, 128)}
TEXT = 256
SIGMAS = torch.linspace(1, 0, 21)


class Call:
    """APPLY_MODEL of a host: the transformer on latents."""

    def __init__(self, transformer: Any) -> None:
        self.class_obj = SimpleNamespace(diffusion_model=transformer)

    def __call__(self, x: torch.Tensor, t: torch.Tensor, _: Any, text: torch.Tensor, *__: Any) -> torch.Tensor:
        tokens, ids = patchify(x)
        self.class_obj.diffusion_model(
            tokens,
            encoder_hidden_states=text,
            pooled_projections=text[:, 0, :768],
            timestep=t.to(x),
            guidance=x.new_full((1,), 3.5),
            img_ids=ids,
            txt_ids=ids.new_zeros(text.shape[1], 3),
        )
        return x


def step(transformer: Any, x: torch.Tensor, text: torch.Tensor, seamless: bool) -> None:
    """The second step of a run: one denoiser call, the hooks' coming and going included."""
    sigmas, axes, call = SIGMAS.to(x.device), TILINGS["both"], Call(transformer)
    options = {"sample_sigmas": sigmas}
    named = {"x": x, "t": sigmas[1:2], "c_concat": None, "c_crossattn": text, "control": None}
    if seamless:
        TorusDiT(axes).step(DenoiserCall(call, {**named, "transformer_options": options}), axes)
    else:
        call(*named.values(), options)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    double, single, heads, latent = SIZES[args.size]
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    torch.set_grad_enabled(False)
    torch.set_default_dtype(dtype)
    with torch.device(args.device):
        config = {
            "num_layers": double,
            "num_single_layers": single,
            "num_attention_heads": heads,
            "guidance_embeds": True,
        }
        transformer: Any = FluxTransformer2DModel.from_config(config)
        x = torch.randn(1, 16, latent, latent)
        text = torch.randn(1, TEXT, 4096)
    runs = [partial(step, transformer, x, text, seamless) for seamless in (False, True)]
    plain, seamless, ratio = compare(runs[0], runs[1], args.device, args.pairs)
    print(f"{args.size} {args.device}: plain {plain:.3f} s, seamless {seamless:.3f} s")
    print(f"ratio {ratio:.3f}, budget {BUDGET}")


if __name__ == "__main__":
    main()
