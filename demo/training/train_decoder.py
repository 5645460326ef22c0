"""Teach the decoder of a demo model's VAE images of several textures, and images that repeat.

`python -m tessera.demo.training.train_decoder --work FOLDER`. A group norm takes its statistics over a whole
image, so that a decoder which has seen single textures alone mixes their colours where several share an image. For
the same reason half of the updates decode on a torus. Encoder and latents stay as they are: textures are encoded one
by one, and their latents put together.

`--keep` teaches the torus alone, from what the decoder before draws without one: all other images stay as they were.
"""

# diffusers declares its classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange

from ...tiling.axes import TILINGS, Axes
from ...tiling.circular import circular
from .common import DEVICE, TrainingRun, autocast
from .parts import FACTOR
from .train_vae import NOISE, crops, difference, draw_pool

STAGES: tuple[tuple[float, int, int], ...] = ((0.6, 64, 12), (1.0, 96, 6))
KEPT_STAGES: tuple[tuple[float, int, int], ...] = ((0.3, 64, 12), (1.0, 128, 3))
"""(end as a share of all updates, side in px, images), and with `keep`."""

WHOLE, HALVES, PATCH = 0.5, 0.3, 0.1
"""Shares of images with one texture, with two side by side, and with one inside another; the others show four."""

TURNED, KEPT_TURNED = 0.5, 0.6
"""Share of updates in which the decoder's convolutions wrap around, and with `keep`: zeros beyond the edge change the
statistics of group norms, so that a decoder which has always seen them tints textures that repeat."""

KEPT_NOISE = 2.0
"""Up to how many times the noise of other trainings is on the latents with `keep`."""

GRID = 4.0
"""Weight of what shows of the grid of latents."""

RUN = 16
"""Pixels over which steps are averaged with their sign, where faint ones add up."""


def areas(side: int, rng: np.random.Generator) -> Tensor:
    """Which texture, 0 to 3, is seen at each latent (side, side)."""
    shown, kind = torch.zeros(side, side, dtype=torch.long), rng.random()
    if kind < WHOLE:
        return shown
    y, x = rng.integers(1, side, 2)
    if kind < WHOLE + HALVES:
        shown[y:] = 1
        return shown if rng.random() < 0.5 else shown.T
    if kind < WHOLE + HALVES + PATCH:
        shown[rng.integers(0, y) : y + 1, rng.integers(0, x) : x + 1] = 1
        return shown
    shown[y:] = 2
    shown[:, x:] += 1
    return shown


def mixed(batch: Tensor, shown: Tensor) -> Tensor:
    """Images or latents (B, C, H, W), each with the next ones of the batch in its areas; shown (B, h, w)."""
    fine = shown.repeat_interleave(batch.shape[2] // shown.shape[1], 1)
    fine = fine.repeat_interleave(batch.shape[3] // shown.shape[2], 2)[:, None]
    return sum((batch.roll(-k, 0) * (fine == k) for k in range(4)), torch.zeros_like(batch))


@torch.no_grad()
def encoded(vae: AutoencoderKL, images: Tensor, most: float | None = None) -> Tensor:
    """Latents of images, with the noise that a denoiser leaves, or each with up to `most` times as much."""
    with autocast():
        latents = vae.encode(images).latent_dist.mean.float()
    amount = 1.0 if most is None else most * torch.rand(len(latents), 1, 1, 1, device=latents.device)
    return latents + amount * NOISE * latents.std() * torch.randn_like(latents)


def loss(vae: AutoencoderKL, images: Tensor, shown: Tensor, axes: Axes) -> tuple[Tensor, float]:
    """As for the whole VAE, of several images' latents on the torus of `axes`, and of the grid that shows."""
    latents = mixed(encoded(vae, images), shown)
    with autocast(), circular(vae.decoder, axes):
        decoded = vae.decode(latents).sample.float()
    wanted = mixed(images, shown)
    judged = torch.where(borders(shown, axes), wanted, decoded)
    value, error = difference(judged, wanted)
    return value + GRID * (profile(judged) - profile(wanted)).abs().mean(), error


def kept(vae: AutoencoderKL, before: AutoencoderKL, images: Tensor, axes: Axes) -> tuple[Tensor, float]:
    """As `difference`, from what `before` decodes without a torus; not within a latent of edges that meet."""
    latents = encoded(vae, images, KEPT_NOISE)
    with autocast(), torch.no_grad():
        wanted = before.decode(latents).sample.float()
    with autocast(), circular(vae.decoder, axes):
        decoded = vae.decode(latents).sample.float()
    inside = slice(FACTOR, -FACTOR) if any(axes) else slice(None)
    return difference(decoded[..., inside, inside], wanted[..., inside, inside])


def profile(images: Tensor) -> Tensor:
    """How steps between neighbours in (B, 3, H, W) spread over the places within a latent: (4, FACTOR) of mean 1.

    Along x and along y, of single steps and of those averaged with their sign over RUN lines. A grid of latents is
    seen where the steps between latents are larger than those inside.
    """
    rows = []
    for turned in (images, images.mT):
        steps = turned.diff(dim=-1)[..., FACTOR - 1 : -FACTOR]
        for each in (steps, steps.unflatten(-2, (-1, RUN)).mean(-2)):
            place = each.abs().unflatten(-1, (-1, FACTOR)).flatten(0, -2).mean(0)
            rows.append(place / place.mean().clamp_min(1e-4))
    return torch.stack(rows)


def borders(shown: Tensor, axes: Axes) -> Tensor:
    """Where (B, 1, H, W) another texture is less than half a latent away, so that no pixel could be right.

    The opposite edge, where it is next, is another texture: images are not made to fit themselves.
    """
    fine = shown.repeat_interleave(FACTOR, 1).repeat_interleave(FACTOR, 2)[:, None].float()
    half = FACTOR // 2
    for wraps, pad in ((axes.horizontal, (half, half, 0, 0)), (axes.vertical, (0, 0, half, half))):
        fine = F.pad(fine, pad, value=-1) if wraps else F.pad(fine, pad, mode="replicate")
    highest, lowest = (sign * F.max_pool2d(sign * fine, FACTOR + 1, 1) for sign in (1, -1))
    return highest != lowest


def train(
    model: Path, work: Path, out: Path, steps: int, pool: int, rate: float = 4e-4, keep: bool = False, every: int = 250
) -> None:
    """Train the decoder of the VAE in `model` and write the VAE to `out`; goes on where a call stopped.

    Args:
        model: diffusers folder of the VAE.
        work: folder of the drawn textures and of the checkpoint, outside the repository.
        out: diffusers folder to write.
        steps: updates.
        pool: textures drawn.
        rate: highest learning rate.
        keep: teach the torus alone.
        every: updates between checkpoints.
    """
    work.mkdir(parents=True, exist_ok=True)
    drawn = draw_pool(pool, 128, work / "pool.npy")
    vae = AutoencoderKL.from_pretrained(model, torch_dtype=torch.float32)
    vae.to(DEVICE, memory_format=torch.channels_last)
    before = copy.deepcopy(vae).requires_grad_(False)
    run = TrainingRun(
        [vae.decoder, vae.post_quant_conv], steps, rate, work / ("kept.pt" if keep else "decoder.pt"), warmup=50
    )
    if run.step >= steps:
        raise ValueError(f"{run.path} holds {run.step} of {steps} updates; name another --work, or more --steps.")
    torch.manual_seed(run.step)
    rng, errors = np.random.default_rng(run.step), []
    for step in (bar := trange(run.step, steps, desc="decoder", mininterval=5)):
        stages = KEPT_STAGES if keep else STAGES
        side, count = next((side, count) for end, side, count in stages if step < end * steps)
        images = crops(drawn, count, side).to(DEVICE).contiguous(memory_format=torch.channels_last)
        axes = TILINGS["both" if rng.random() < (KEPT_TURNED if keep else TURNED) else "off"]
        if keep:
            value, error = kept(vae, before, images, axes)
        else:
            shown = torch.stack([areas(side // FACTOR, rng) for _ in range(count)]).to(DEVICE)
            value, error = loss(vae, images, shown, axes)
        run.update(value)
        errors.append(error)
        if run.step % 25 == 0:
            bar.set_postfix(error=f"{np.mean(errors[-100:]):.4f}")
        if run.step % every == 0 or run.step == steps:
            run.save()
            export(run, vae, out)


def export(run: TrainingRun, vae: AutoencoderKL, out: Path) -> None:
    """Write the VAE with the averaged weights as a diffusers folder."""
    run.average.swap()
    vae.save_pretrained(out)
    run.average.swap()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "models" / "texture-sd" / "vae")
    parser.add_argument("--work", type=Path, required=True, help="folder for the drawn textures and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="the VAE's diffusers folder to write")
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--pool", type=int, default=6500, help="textures drawn")
    parser.add_argument("--rate", type=float, default=4e-4, help="highest learning rate")
    parser.add_argument("--keep", action="store_true", help="teach the torus alone")
    args = parser.parse_args()
    train(args.model, args.work, args.out, args.steps, args.pool, args.rate, args.keep)


if __name__ == "__main__":
    main()
