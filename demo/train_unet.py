"""Train the UNet and the text encoder of `texture-sd` on latents of drawn textures, v-prediction, min-SNR weighting."""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from tqdm import trange
from transformers import CLIPTextModel, CLIPTokenizer

from .captions import caption, pairs
from .parts import FACTOR, SCALING, new_scheduler, new_text_encoder, new_tokenizer, new_unet, save_pipeline
from .textures import PATTERNS, draw
from .training import DEVICE, Run, autocast

Label = tuple[str, str, str]
"""Pattern, main colour, second colour."""

DROPPED = 0.1
"""Share of captions replaced by the empty prompt, for classifier-free guidance (Ho and Salimans 2022)."""

MOST_SNR = 5.0
"""Gamma of min-SNR weighting (Hang et al. 2023)."""

STAGES: tuple[tuple[float, int, int], ...] = ((0.55, 8, 32), (0.95, 16, 32), (1.0, 24, 12))
"""(end as a share of all updates, latents along a side, batch): small crops first, since textures are stationary."""


@dataclass
class Latents:
    """Encoded textures and what they show.

    Args:
        values: (N, 4, S, S), scaled to mean 0 and deviation 1.
        labels: N of them.
    """

    values: Tensor
    labels: list[Label]


def labels(count: int) -> list[Label]:
    """Every pattern and allowed colour pair equally often, in a fixed shuffled order."""
    every = [(pattern, a, b) for a, b in pairs(held_out=False) for pattern in PATTERNS]
    order = np.random.default_rng(0).permutation(count) % len(every)
    return [every[i] for i in order]


@torch.no_grad()
def encode(vae: AutoencoderKL, count: int, size: int, work: Path) -> Latents:
    """Draw and encode `count` textures of `size` px, or read those of an earlier call from `work`.

    They are larger than what the UNet sees: crops of latents carry no trace of the encoder's zero padding.
    """
    path, shown = work / "latents.npy", labels(count)
    if path.exists():
        return Latents(torch.from_numpy(np.load(path)), shown)
    vae.to(DEVICE, memory_format=torch.channels_last).eval()
    rng, batch, parts = np.random.default_rng(1), 8, []
    for start in trange(0, count, batch, desc="encode", mininterval=5):
        drawn = np.stack([draw(rng, p, (a, b), size) for p, a, b in shown[start : start + batch]])
        pictures = torch.from_numpy(drawn).to(DEVICE).permute(0, 3, 1, 2).float() / 127.5 - 1
        with autocast():
            latents = vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist.mode()
        parts.append(latents.float().cpu() * SCALING)
    values = torch.cat(parts)
    np.save(path, values.numpy())
    return Latents(values, shown)


def crop(latents: Latents, chosen: list[int], side: int, rng: np.random.Generator) -> Tensor:
    """(B, 4, side, side), each crop from a place of its own."""
    room = latents.values.shape[-1] - side + 1
    corners = rng.integers(0, room, (len(chosen), 2))
    return torch.stack(
        [latents.values[i, :, y : y + side, x : x + side] for i, (y, x) in zip(chosen, corners, strict=True)]
    )


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


class Diffusion:
    """The forward process and its weighted loss, over SD 1.5's noise schedule."""

    def __init__(self) -> None:
        self.alphas = new_scheduler().alphas_cumprod.to(DEVICE)

    def loss(self, unet: UNet2DConditionModel, encoder: CLIPTextModel, latents: Tensor, ids: Tensor) -> Tensor:
        """Mean squared error of v (Salimans and Ho 2022), weighted by min(SNR, 5) / (SNR + 1)."""
        count = len(latents)
        times = (torch.rand(count).add(torch.arange(count)).div(count) * 1000).long().to(DEVICE)
        alpha = self.alphas[times][:, None, None, None]
        noise = torch.randn_like(latents)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        with autocast():
            context = encoder(ids).last_hidden_state
            found = unet(noisy.contiguous(memory_format=torch.channels_last), times, context).sample
        snr = (alpha / (1 - alpha)).flatten()
        weight = snr.clamp(max=MOST_SNR) / (snr + 1)
        return (weight * (found.float() - velocity).square().mean((1, 2, 3))).mean()


def stage(step: int, total: int) -> tuple[int, int]:
    """Latents along a side and batch size at an update."""
    return next((side, batch) for end, side, batch in STAGES if step < end * total or end == 1.0)


def export(run: Run, vae: AutoencoderKL, out: Path) -> None:
    """Write the diffusers folder with the averaged weights, in float16."""
    run.average.swap()
    unet, encoder = (copy.deepcopy(m).cpu() for m in run.modules)
    run.average.swap()
    assert isinstance(unet, UNet2DConditionModel) and isinstance(encoder, CLIPTextModel)
    save_pipeline(out, copy.deepcopy(vae).cpu(), unet, encoder)


def train(vae: AutoencoderKL, work: Path, out: Path, steps: int, pool: int, size: int, every: int = 500) -> None:
    """Train and write `out`, at every `every` updates too; goes on where an interrupted call stopped.

    Args:
        vae: with normalised latents.
        work: folder of the encoded pool and of the checkpoint, outside the repository.
        out: the diffusers folder to write.
        steps: updates.
        pool: pictures drawn.
        size: their width and height in px.
    """
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    tokenizer = new_tokenizer(work / "tokenizer")
    latents = encode(vae, pool, size, work)
    unet = new_unet().to(DEVICE, memory_format=torch.channels_last)
    encoder = new_text_encoder(tokenizer).to(DEVICE)
    run = Run([unet, encoder], steps, 1e-3, work / "unet.pt")
    torch.manual_seed(run.step)
    rng = np.random.default_rng(run.step)
    diffusion, log = Diffusion(), []
    for step in (bar := trange(run.step, steps, desc="unet", mininterval=5)):
        side, batch = stage(step, steps)
        chosen = rng.integers(len(latents.labels), size=batch).tolist()
        texts = ["" if rng.random() < DROPPED else caption(rng, p, (a, b)) for p, a, b in (latents.labels[i] for i in chosen)]
        values = crop(latents, chosen, side, rng).to(DEVICE)
        loss = diffusion.loss(unet, encoder, values, tokens(tokenizer, texts).to(DEVICE))
        run.update(loss)
        log.append(loss.item())
        if run.step % 50 == 0:
            bar.set_postfix(loss=f"{np.mean(log[-50:]):.4f}")
            with (work / "unet.jsonl").open("a") as file:
                file.write(json.dumps({"step": run.step, "side": side, "loss": float(np.mean(log[-50:]))}) + "\n")
        if run.step % every == 0:
            run.save()
            export(run, vae, out)
    run.save()
    export(run, vae, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="diffusers folder of the VAE")
    parser.add_argument("--work", type=Path, required=True, help="folder for latents and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="diffusers folder to write")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--pool", type=int, default=6400, help="textures drawn and encoded")
    parser.add_argument("--size", type=int, default=24 * FACTOR, help="their side in px")
    args = parser.parse_args()
    train(AutoencoderKL.from_pretrained(args.vae), args.work, args.out, args.steps, args.pool, args.size)


if __name__ == "__main__":
    main()
