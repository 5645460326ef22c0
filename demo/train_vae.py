"""Train the VAE of `texture-sd` on crops of drawn textures, small crops first, since textures are stationary."""

# diffusers declares its classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from .parts import FACTOR, SCALING, new_vae
from .textures import PALETTE, PATTERNS, draw
from .training import DEVICE, Run, autocast

STAGES: tuple[tuple[float, int, int], ...] = ((0.65, 32, 16), (0.95, 64, 12), (1.0, 128, 4))
"""(end as a share of all updates, crop in px, batch)."""

LATENT_NOISE = 0.07
"""Deviation of the noise on latents while the decoder is polished: what a UNet leaves."""

KL = 1e-5
"""Weight of the KL term: enough to keep latents small, too little to dull the colours."""


def new_linear_vae() -> AutoencoderKL:
    """A VAE that starts as a linear autoencoder: residual branches add nothing, resampling averages and repeats.

    From the usual initial weights such a deep, narrow net stays at a grey picture for hundreds of updates.
    """
    vae = new_vae()
    for name, module in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.endswith("samplers.0.conv"):
            _resample(module.weight.data, mean="down" in name)
    return vae


def _resample(weight: Tensor, mean: bool) -> None:
    """Set a (C, C, 3, 3) kernel to a 2x2 mean or to the identity, plus a little of what it was."""
    weight *= 0.1
    own = torch.arange(len(weight))
    if mean:
        weight[own, own, :2, :2] += 0.25
    else:
        weight[own, own, 1, 1] += 1


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


def steps_between(pictures: Tensor) -> tuple[Tensor, Tensor]:
    return pictures[..., 1:] - pictures[..., :-1], pictures[..., 1:, :] - pictures[..., :-1, :]


def loss(vae: AutoencoderKL, pictures: Tensor, noisy: bool) -> tuple[Tensor, float]:
    """The training loss, with a little KL, and the mean absolute error in a range of 2."""
    with autocast():
        found = vae.encode(pictures).latent_dist
        latents = found.mean + found.std * torch.randn_like(found.mean) if noisy else found.mean
        decoded = vae.decode(latents).sample
    mean, logvar = found.mean.float(), found.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    value, error = difference(decoded.float(), pictures)
    return value + KL * kl, error


def difference(decoded: Tensor, pictures: Tensor) -> tuple[Tensor, float]:
    """Loss and mean absolute error: L1, L2, L1 of neighbours' steps against blur, L1 of 8x8 means for true colours."""
    error = (decoded - pictures).abs().mean()
    edges = sum((a - b).abs().mean() for a, b in zip(steps_between(decoded), steps_between(pictures), strict=True))
    colours = (F.avg_pool2d(decoded, FACTOR) - F.avg_pool2d(pictures, FACTOR)).abs().mean()
    return error + (decoded - pictures).square().mean() + 0.5 * edges + 0.5 * colours, float(error)


def stage(step: int, total: int) -> tuple[int, int]:
    """Crop size and batch at an update."""
    return next((size, batch) for end, size, batch in STAGES if step < end * total or end == 1.0)


@torch.no_grad()
def normalise(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Fold a shift and scale of each latent channel into the 1x1 convolutions around the latents.

    Afterwards SCALING * latents of `pictures` have mean 0 and deviation 1, and decoded pictures are as before.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in pictures.split(8)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    factor = deviation * SCALING
    half = len(mean)
    state = vae.state_dict()
    state["post_quant_conv.bias"] += state["post_quant_conv.weight"][:, :, 0, 0] @ mean
    state["post_quant_conv.weight"] *= factor[None, :, None, None]
    state["quant_conv.weight"][:half] /= factor[:, None, None, None]
    state["quant_conv.bias"][:half] = (state["quant_conv.bias"][:half] - mean) / factor
    state["quant_conv.bias"][half:] -= 2 * factor.log()


def polish(folder: Path, work: Path, out: Path, steps: int, pool: int, every: int = 250) -> None:
    """Train the decoder alone, so that latents keep their meaning: a UNet may learn them meanwhile.

    Args:
        folder: diffusers folder of a VAE with normalised latents.
        work: folder of the drawn pool and of the checkpoint.
        out: diffusers folder to write.
        steps: updates.
        pool: pictures drawn.
    """
    torch.manual_seed(1)
    drawn = draw_pool(pool, 128, work / "pool.npy")
    vae = AutoencoderKL.from_pretrained(folder).to(DEVICE, memory_format=torch.channels_last)
    run = Run([vae.decoder], steps, 5e-4, work / "decoder.pt", warmup=100)
    torch.manual_seed(run.step)
    errors: list[float] = []
    for _ in (bar := trange(run.step, steps, desc="decoder", mininterval=5)):
        pictures = crops(drawn, 8, 64).to(DEVICE).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), autocast():
            latents = vae.encode(pictures).latent_dist.mean
        with autocast():
            decoded = vae.decode(latents + LATENT_NOISE / SCALING * torch.randn_like(latents)).sample
        value, error = difference(decoded.float(), pictures)
        run.update(value)
        errors.append(error)
        if run.step % 50 == 0:
            bar.set_postfix(error=f"{np.mean(errors[-50:]):.4f}")
        if run.step % every == 0 or run.step == steps:
            run.save()
            run.average.swap()
            vae.save_pretrained(out)
            run.average.swap()


def export(run: Run, pool: Tensor, out: Path) -> AutoencoderKL:
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
        pool: pictures drawn.
    """
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    drawn = draw_pool(pool, 128, work / "pool.npy")
    vae = new_linear_vae().to(DEVICE, memory_format=torch.channels_last)
    run = Run([vae], steps, 1e-3, work / "vae.pt", warmup=50)
    torch.manual_seed(run.step)
    errors: list[float] = []
    for step in (bar := trange(run.step, steps, desc="vae", mininterval=5)):
        size, batch = stage(step, steps)
        pictures = crops(drawn, batch, size).to(DEVICE).contiguous(memory_format=torch.channels_last)
        value, error = loss(vae, pictures, noisy=step > 300)
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
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--pool", type=int, default=8000, help="textures drawn")
    args = parser.parse_args()
    train(args.work, args.out, args.steps, args.pool)


if __name__ == "__main__":
    main()
