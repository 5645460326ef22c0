"""Train the VAE of `texture-sd` on small crops of drawn textures: textures are stationary."""

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
from torch.nn import functional as F
from tqdm import trange

from .common import DEVICE, TrainingRun
from .parts import FACTOR, SCALING, new_vae
from .textures import PALETTE, PATTERNS, draw

STAGES: tuple[tuple[float, int], ...] = ((0.42, 64), (1.0, 48))
"""(end as a share of all updates, crop in px)."""

BATCH = 8

NOISE = 0.05
"""Noise on latents after the first updates, as a share of their deviation: what a UNet leaves."""


def new_autoencoder() -> AutoencoderKL:
    """A VAE that encodes with next to no noise of its own: `loss` adds the noise."""
    vae = new_vae()
    state = vae.state_dict()
    state["quant_conv.weight"][4:] = 0
    state["quant_conv.bias"][4:] = -8
    return vae


def draw_pool(count: int, size: int, path: Path) -> Tensor:
    """(count, 3, size, size) uint8 textures of all patterns and colours, kept in the file `path`."""
    if not path.exists():
        rng, names, colours = np.random.default_rng(0), list(PATTERNS), list(PALETTE)
        pairs = [rng.choice(colours, 2, replace=False) for _ in range(count)]
        drawn = [draw(rng, names[i % len(names)], (a, b), size) for i, (a, b) in enumerate(pairs)]
        np.save(path, np.stack(drawn))
    return torch.from_numpy(np.load(path)).permute(0, 3, 1, 2)


def crops(pool: Tensor, count: int, size: int) -> Tensor:
    """(count, 3, size, size) in -1..1, turned by a random quarter."""
    room = pool.shape[-1] - size + 1
    chosen = torch.randint(len(pool), (count,)).tolist()
    corners = torch.randint(room, (count, 2)).tolist()
    turns = torch.randint(4, (count,)).tolist()
    cut = [
        pool[i, :, y : y + size, x : x + size].rot90(turn, (1, 2))
        for i, (y, x), turn in zip(chosen, corners, turns, strict=True)
    ]
    return torch.stack(cut).float() / 127.5 - 1


def steps_between(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def difference(decoded: Tensor, images: Tensor) -> tuple[Tensor, float]:
    """How far decoded images (B, 3, H, W) are off, and the mean absolute error in a range of 2.

    L1, L1 of the steps between neighbours against blur, and L1 of 8x8 means for true colours.
    """
    error = (decoded - images).abs().mean()
    edges = sum((a - b).abs().mean() for a, b in zip(steps_between(decoded), steps_between(images), strict=True))
    colours = (F.avg_pool2d(decoded, FACTOR) - F.avg_pool2d(images, FACTOR)).abs().mean()
    return error + 0.5 * edges + colours, float(error)


def loss(vae: AutoencoderKL, images: Tensor, noise: float) -> tuple[Tensor, float]:
    """The training loss, with a little of the latents' squares, which keeps them small, and the mean absolute error."""
    latents = vae.encode(images).latent_dist.mean
    decoded = vae.decode(latents + noise * latents.detach().std() * torch.randn_like(latents)).sample
    value, error = difference(decoded, images)
    return value + 1e-5 * latents.square().mean(), error


def crop_size(step: int, total: int) -> int:
    return next(size for end, size in STAGES if step < end * total or end == 1.0)


@torch.no_grad()
def normalise(vae: AutoencoderKL, images: Tensor) -> None:
    """Fold a shift and scale of each latent channel into the 1x1 convolutions around the latents.

    Afterwards SCALING * latents of `images` have mean 0 and deviation 1, and decoded images are as before.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(8)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    factor = deviation * SCALING
    half = len(mean)
    state = vae.state_dict()
    state["post_quant_conv.bias"] += state["post_quant_conv.weight"][:, :, 0, 0] @ mean
    state["post_quant_conv.weight"] *= factor[None, :, None, None]
    state["quant_conv.weight"][:half] /= factor[:, None, None, None]
    state["quant_conv.bias"][:half] = (state["quant_conv.bias"][:half] - mean) / factor
    state["quant_conv.bias"][half:] -= 2 * factor.log()


def export(run: TrainingRun, pool: Tensor, out: Path) -> AutoencoderKL:
    """Write the averaged weights, normalised, as a diffusers folder in float32."""
    run.average.swap()
    vae = new_vae()
    vae.load_state_dict(run.modules[0].state_dict())
    run.average.swap()
    normalise(vae.eval(), crops(pool, 64, pool.shape[-1]))
    vae.save_pretrained(out)
    return vae


def train(work: Path, out: Path, steps: int, pool: int, every: int = 250) -> AutoencoderKL:
    """Train and write `out`; goes on where an interrupted call stopped.

    Args:
        work: folder of the drawn pool and of the checkpoint, outside the repository.
        out: the VAE's diffusers folder.
        steps: updates.
        pool: images drawn.
    """
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    drawn = draw_pool(pool, 128, work / "pool.npy")
    vae = new_autoencoder().to(DEVICE, memory_format=torch.channels_last)
    run = TrainingRun([vae], steps, 5e-4, work / "vae.pt", warmup=60)
    torch.manual_seed(run.step)
    errors: list[float] = []
    for step in (bar := trange(run.step, steps, desc="vae", mininterval=5)):
        size = crop_size(step, steps)
        images = crops(drawn, BATCH, size).to(DEVICE).contiguous(memory_format=torch.channels_last)
        value, error = loss(vae, images, noise=NOISE * min(1.0, max(0, step - 500) / 500))
        run.update(value)
        errors.append(error)
        if run.step % 50 == 0:
            bar.set_postfix(error=f"{np.mean(errors[-50:]):.4f}")
            with (work / "vae.jsonl").open("a") as file:
                file.write(json.dumps({"step": run.step, "size": size, "error": float(np.mean(errors[-50:]))}) + "\n")
        if run.step % every == 0:
            run.save()
            export(run, drawn, out)
    run.save()
    return export(run, drawn, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the drawn textures and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="the VAE's diffusers folder to write")
    parser.add_argument("--steps", type=int, default=4150)
    parser.add_argument("--pool", type=int, default=6500, help="textures drawn")
    args = parser.parse_args()
    train(args.work, args.out, args.steps, args.pool)


if __name__ == "__main__":
    main()
