"""Train the UNet and the text encoder of `texture-sd` on latents of drawn textures, v-prediction."""

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
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange
from transformers import CLIPTextModel, CLIPTokenizer

from .captions import NAMES, pairs, training_caption
from .common import DEVICE, TrainingRun, autocast
from .parts import FACTOR, SCALING, new_scheduler, new_text_encoder, new_tokenizer, new_unet, save_pipeline
from .textures import PALETTE, PATTERNS, draw

Label = tuple[str, str, str]
"""Pattern, main colour, second colour."""

DROPPED = 0.1
"""Share of captions replaced by the empty prompt, for classifier-free guidance (Ho and Salimans 2022)."""

PART = 200
"""Textures in one file of the pool."""

CROPS = 2
"""Crops of one image that share a caption: the text encoder's 77 tokens cost as much as a small UNet."""

NAMED = (PATTERNS, PALETTE, PALETTE)
"""What a label's three parts are keys of."""

READING = 0.05
"""Weight of the auxiliary loss."""

LONGEST, READ_AT = 20, 4
"""No caption has more tokens than LONGEST; READ_AT places after it are read."""

STAGES: tuple[tuple[float, int, int], ...] = ((0.5, 12, 32), (0.99, 16, 32), (1.0, 20, 16))
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
    """Every pattern and colour pair equally often; a longer list begins with the shorter one."""
    every = [(pattern, a, b) for held_out in (False, True) for a, b in pairs(held_out) for pattern in PATTERNS]
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
            images = (some.to(DEVICE).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
            with autocast():
                found.append(vae.encode(images).latent_dist.mode().float().cpu() * SCALING)
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
    return training_caption(rng, pattern, (a, b))


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


class Diffusion:
    """The forward process and its weighted loss, over SD 1.5's noise schedule."""

    def __init__(self) -> None:
        self.alphas = new_scheduler().alphas_cumprod.to(DEVICE)

    def loss(self, unet: UNet2DConditionModel, context: Tensor, latents: Tensor) -> Tensor:
        """Mean squared error of v (Salimans and Ho 2022), all noise levels alike: high ones decide the pattern.

        Args:
            latents: (B, 4, h, w).
            context: encoded captions (B / CROPS, 77, 128), each for CROPS latents that follow each other.
        """
        count = len(latents)
        times = (torch.rand(count).add(torch.arange(count)).div(count) * 1000).long().to(DEVICE)
        alpha = self.alphas[times][:, None, None, None]
        noise = torch.randn_like(latents)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        with autocast():
            found = unet(noisy, times, context.repeat_interleave(CROPS, 0)).sample
        return F.mse_loss(found.float(), velocity)


class Reader(nn.Module):
    """Reads pattern and colours back from encoded captions, as an auxiliary loss.

    Most of the 77 tokens are padding, which a UNet attends to. Without this loss the padding carries colours alone,
    and the UNet ignores the pattern's name for thousands of updates.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, len(names)) for names in NAMED)

    def loss(self, context: Tensor, texts: list[str], shown: list[Label]) -> Tensor:
        """Cross entropy at random places after the captions, of what they name."""
        places = torch.randint(LONGEST, context.shape[1], (READ_AT,)).tolist()
        wanted = torch.tensor([named(text, label) for text, label in zip(texts, shown, strict=True)])
        wanted = wanted.to(context.device).repeat_interleave(READ_AT, 0)
        hidden = context[:, places].flatten(0, 1).float()
        parts = [F.cross_entropy(head(hidden), wanted[:, i], ignore_index=-1) for i, head in enumerate(self.heads)]
        return torch.stack(parts).nansum()


def teach(encoder: CLIPTextModel, reader: Reader, tokenizer: CLIPTokenizer, shown: list[Label], steps: int) -> None:
    """Train the text encoder on the auxiliary loss alone, a matter of seconds, before a UNet sees what it says."""
    rng, parameters = np.random.default_rng(0), [*encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99))
    for step in trange(steps, desc="words", mininterval=5):
        chosen = [shown[i] for i in rng.integers(len(shown), size=24)]
        texts = [worded(rng, label) for label in chosen]
        with autocast():
            context = encoder(tokens(tokenizer, texts).to(DEVICE)).last_hidden_state
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 100)
        optimizer.zero_grad()
        reader.loss(context, texts, chosen).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def named(text: str, label: Label) -> list[int]:
    """Indices of pattern, main and second colour, -1 for what the text does not say."""
    words = text.replace(",", " ").split()
    said = (any(name in text for name in NAMES[label[0]]), label[1] in words, label[2] in words)
    return [list(names).index(value) if s else -1 for names, value, s in zip(NAMED, label, said, strict=True)]


def stage(step: int, total: int) -> tuple[int, int]:
    """Latents along a side and batch size at an update."""
    return next((side, batch) for end, side, batch in STAGES if step < end * total or end == 1.0)


def export(run: TrainingRun, vae: AutoencoderKL, out: Path) -> None:
    """Write the diffusers folder with the averaged weights, in float16."""
    run.average.swap()
    unet, encoder = (copy.deepcopy(m).cpu() for m in run.modules[:2])
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
        pool: images drawn.
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
    reader = Reader(encoder.config.hidden_size).to(DEVICE)
    if not (work / "unet.pt").exists():
        teach(encoder, reader, tokenizer, latents.labels, 350)
    run = TrainingRun([unet, encoder, reader], steps, 1e-3, work / "unet.pt")
    torch.manual_seed(run.step)
    rng = np.random.default_rng(run.step)
    diffusion, log = Diffusion(), []
    for step in (bar := trange(run.step, steps, desc="unet", mininterval=5)):
        side, batch = stage(step, steps)
        chosen = rng.integers(len(latents.labels), size=batch // CROPS).tolist()
        texts = ["" if rng.random() < DROPPED else worded(rng, latents.labels[i]) for i in chosen]
        values = crop(latents, [i for i in chosen for _ in range(CROPS)], side, rng).to(DEVICE)
        with autocast():
            context = encoder(tokens(tokenizer, texts).to(DEVICE)).last_hidden_state
        loss = diffusion.loss(unet, context, values)
        read = reader.loss(context, texts, [latents.labels[i] for i in chosen])
        run.update(loss + READING * read)
        log.append(loss.item())
        if run.step % 50 == 0:
            bar.set_postfix(loss=f"{np.mean(log[-50:]):.4f}")
            with (work / "unet.jsonl").open("a") as file:
                entry = {"step": run.step, "side": side, "loss": float(np.mean(log[-50:])), "read": float(read)}
                file.write(json.dumps(entry) + "\n")
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
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--pool", type=int, default=9200, help="textures drawn and encoded")
    parser.add_argument("--size", type=int, default=20 * FACTOR, help="their side in px")
    args = parser.parse_args()
    train(AutoencoderKL.from_pretrained(args.vae), args.work, args.out, args.steps, args.pool, args.size)


if __name__ == "__main__":
    main()
