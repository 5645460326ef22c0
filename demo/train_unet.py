"""Train the UNet and the text encoder of `texture-sd` on latents of drawn textures, v-prediction, min-SNR weighting."""

# diffusers declares its classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
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

PART = 200
"""Textures in one file of the pool."""

CROPS = 2
"""Crops of one picture that share a caption: the text encoder's 77 tokens cost as much as a small UNet."""

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
    """Every pattern and allowed colour pair equally often; a longer list begins with the shorter one."""
    every = [(pattern, a, b) for a, b in pairs(held_out=False) for pattern in PATTERNS]
    rng = np.random.default_rng(0)
    rounds = [rng.permutation(len(every)) for _ in range(-(-count // len(every)))]
    return [every[i] for i in np.concatenate(rounds)[:count]]


def encode(vae: AutoencoderKL, count: int, size: int, work: Path) -> Latents:
    """Draw and encode `count` textures of `size` px; parts that lie in `work` already are read.

    They are larger than what the UNet sees: crops of latents carry no trace of the encoder's zero padding.
    """
    vae.to(DEVICE, memory_format=torch.channels_last).eval()
    parts = [encode_part(vae, part, size, work) for part in trange(count // PART, desc="encode", mininterval=5)]
    return Latents(torch.cat(parts), labels(count // PART * PART))


@torch.no_grad()
def encode_part(vae: AutoencoderKL, part: int, size: int, work: Path) -> Tensor:
    """Latents (PART, 4, size / 8, size / 8) of one part of the pool, kept as a file in `work`."""
    path = work / f"latents-{part:03}.npy"
    if not path.exists():
        rng, shown = np.random.default_rng((1, part)), labels((part + 1) * PART)[-PART:]
        drawn = torch.from_numpy(np.stack([draw(rng, p, (a, b), size) for p, a, b in shown])).permute(0, 3, 1, 2)
        found = []
        for some in drawn.split(8):
            pictures = (some.to(DEVICE).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
            with autocast():
                found.append(vae.encode(pictures).latent_dist.mode().float().cpu() * SCALING)
        np.save(path, torch.cat(found).numpy())
    return torch.from_numpy(np.load(path))


def crop(latents: Latents, chosen: list[int], side: int, rng: np.random.Generator) -> Tensor:
    """(B, 4, side, side), each crop from a place of its own."""
    room = latents.values.shape[-1] - side + 1
    corners = rng.integers(0, room, (len(chosen), 2))
    return torch.stack(
        [latents.values[i, :, y : y + side, x : x + side] for i, (y, x) in zip(chosen, corners, strict=True)]
    )


def worded(rng: np.random.Generator, label: Label) -> str:
    pattern, a, b = label
    return caption(rng, pattern, (a, b))


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


class Diffusion:
    """The forward process and its weighted loss, over SD 1.5's noise schedule."""

    def __init__(self) -> None:
        self.alphas = new_scheduler().alphas_cumprod.to(DEVICE)

    def loss(self, unet: UNet2DConditionModel, encoder: CLIPTextModel, latents: Tensor, ids: Tensor) -> Tensor:
        """Mean squared error of v (Salimans and Ho 2022), weighted by min(SNR, 5) / (SNR + 1).

        Args:
            latents: (B, 4, h, w).
            ids: tokens (B / CROPS, 77), each row for CROPS latents that follow each other.
        """
        count = len(latents)
        times = (torch.rand(count).add(torch.arange(count)).div(count) * 1000).long().to(DEVICE)
        alpha = self.alphas[times][:, None, None, None]
        noise = torch.randn_like(latents)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        with autocast():
            context = encoder(ids).last_hidden_state.repeat_interleave(CROPS, 0)
            found = unet(noisy, times, context).sample
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
    unet = new_unet().to(DEVICE)
    encoder = new_text_encoder(tokenizer).to(DEVICE)
    if DEVICE.type == "cpu":  # the backward pass of fused attention is slow there
        unet.set_attn_processor(AttnProcessor())
        encoder.set_attn_implementation("eager")
    run = Run([unet, encoder], steps, 1e-3, work / "unet.pt")
    torch.manual_seed(run.step)
    rng = np.random.default_rng(run.step)
    diffusion, log = Diffusion(), []
    for step in (bar := trange(run.step, steps, desc="unet", mininterval=5)):
        side, batch = stage(step, steps)
        chosen = rng.integers(len(latents.labels), size=batch // CROPS).tolist()
        texts = ["" if rng.random() < DROPPED else worded(rng, latents.labels[i]) for i in chosen]
        values = crop(latents, [i for i in chosen for _ in range(CROPS)], side, rng).to(DEVICE)
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
