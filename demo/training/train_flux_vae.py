"""Train the 16-channel VAE of `texture-flux`, begun from the 4-channel one of `texture-sd`.

The wider latents carry four times as much of what the same encoder and decoder already see, so a thousand updates on
small crops are enough. The decoder can go on alone while a transformer learns the latents.
"""

# diffusers declares its classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import trange

from .common import DEVICE, TrainingRun
from .flux_parts import CHANNELS, SCALING, SHIFT, new_vae
from .train_vae import crops, draw_pool, loss

BATCH, CROP = 8, 48

NOISE = 0.05
"""Noise on latents as a share of their deviation: what a transformer leaves."""

QUIET = -8.0
"""Logarithm of the encoder's own variance: next to none, `loss` adds the noise."""


@torch.no_grad()
def normalise(vae: AutoencoderKL, images: Tensor) -> None:
    """Fold a shift and scale of each latent channel into the 1x1 convolutions around the latents.

    Afterwards (latents - SHIFT) * SCALING of `images` have mean 0 and deviation 1, decoded images are as before.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(8)])
    mean, factor = latents.mean((0, 2, 3)), latents.std((0, 2, 3)) * SCALING
    half, state = len(mean), vae.state_dict()
    state["post_quant_conv.bias"] += state["post_quant_conv.weight"][:, :, 0, 0] @ (mean - SHIFT * factor)
    state["post_quant_conv.weight"] *= factor[None, :, None, None]
    state["quant_conv.weight"][:half] /= factor[:, None, None, None]
    state["quant_conv.bias"][:half] = (state["quant_conv.bias"][:half] - mean) / factor + SHIFT


@torch.no_grad()
def widened(narrow: AutoencoderKL) -> AutoencoderKL:
    """A VAE of CHANNELS latent channels that decodes as `narrow` does: its decoder does not look at new ones yet."""
    vae, old = new_vae(), narrow.state_dict()
    state = vae.state_dict()
    few = narrow.config.latent_channels
    for name, weight in state.items():
        if weight.shape == old[name].shape:
            weight.copy_(old[name])
    state["encoder.conv_out.weight"][:few] = old["encoder.conv_out.weight"][:few]
    state["encoder.conv_out.bias"][:few] = old["encoder.conv_out.bias"][:few]
    for name, bias in (("quant_conv", QUIET), ("post_quant_conv", 0.0)):
        torch.nn.init.eye_(state[f"{name}.weight"][:CHANNELS, :CHANNELS, 0, 0])
        state[f"{name}.weight"][CHANNELS:] = 0
        state[f"{name}.weight"][:few, :few] = old[f"{name}.weight"][:few, :few]
        state[f"{name}.bias"][:CHANNELS] = 0
        state[f"{name}.bias"][CHANNELS:] = bias
        state[f"{name}.bias"][:few] = old[f"{name}.bias"][:few]
    state["decoder.conv_in.weight"][:, few:] = 0
    state["decoder.conv_in.weight"][:, :few] = old["decoder.conv_in.weight"]
    state["quant_conv.weight"][:, CHANNELS:] = 0
    return vae


def export(run: TrainingRun, pool: Tensor, out: Path, decoder_only: bool) -> AutoencoderKL:
    """Write the averaged weights, normalised, as a diffusers folder in float32."""
    run.average.swap()
    vae = new_vae()
    vae.load_state_dict(run.modules[0].state_dict())
    run.average.swap()
    if not decoder_only:
        normalise(vae.eval(), crops(pool, 64, pool.shape[-1]))
    vae.save_pretrained(out)
    return vae


def train(
    start: AutoencoderKL, work: Path, out: Path, steps: int, pool: int, decoder_only: bool = False
) -> AutoencoderKL:
    """Train and write `out`; goes on where an interrupted call stopped.

    Args:
        start: the VAE of `texture-sd`, or with `decoder_only` the one that this function made.
        work: folder of the drawn pool and of the checkpoint, outside the repository.
        out: the VAE's diffusers folder.
        steps: updates.
        pool: images drawn.
        decoder_only: latents stay what they are.
    """
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    drawn = draw_pool(pool, 128, work / "pool.npy")
    vae = start if decoder_only else widened(start)
    if decoder_only:
        vae.encoder.requires_grad_(False)
        assert vae.quant_conv is not None
        vae.quant_conv.requires_grad_(False)
    else:
        normalise(vae, crops(drawn, 32, 128))
    checkpoint = work / ("decoder.pt" if decoder_only else "vae.pt")
    run = TrainingRun([vae.to(DEVICE, memory_format=torch.channels_last)], steps, 3e-4, checkpoint, warmup=100)
    torch.manual_seed(run.step)
    errors: list[float] = []
    for _ in (bar := trange(run.step, steps, desc="vae", mininterval=5)):
        images = crops(drawn, BATCH, CROP).to(DEVICE).contiguous(memory_format=torch.channels_last)
        value, error = loss(vae, images, NOISE)
        run.update(value)
        errors.append(error)
        if run.step % 50 == 0:
            bar.set_postfix(error=f"{np.mean(errors[-50:]):.4f}")
            with (work / "vae.jsonl").open("a") as file:
                file.write(json.dumps({"step": run.step, "error": float(np.mean(errors[-50:]))}) + "\n")
        if run.step % 250 == 0:
            run.save()
            export(run, drawn, out, decoder_only)
    run.save()
    return export(run, drawn, out, decoder_only)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=Path, default=Path(__file__).parents[1] / "models" / "texture-sd" / "vae")
    parser.add_argument("--decoder-only", action="store_true", help="go on with --start, whose latents stay")
    parser.add_argument("--work", type=Path, required=True, help="folder for the drawn textures and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="the VAE's diffusers folder to write")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--pool", type=int, default=6500, help="textures drawn")
    args = parser.parse_args()
    start = AutoencoderKL.from_pretrained(args.start)
    train(start, args.work, args.out, args.steps, args.pool, args.decoder_only)


if __name__ == "__main__":
    main()
