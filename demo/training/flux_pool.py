"""The latents that `texture-flux` learns from: of drawn textures, of colours alone, and of textures that repeat."""

# diffusers declares its classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import trange

from ...tiling.axes import Axes
from ...tiling.circular import circular
from .common import DEVICE, autocast
from .flux_parts import SCALING, SHIFT
from .repeating import Label, draw_repeating
from .textures import PALETTE, PATTERNS, draw

PLAIN = 24
"""Images of each colour alone."""

PART = 195
"""Textures in one file of the pool."""

TORUS = 16
"""Latents along a side of a whole torus."""

CUTS = 2
"""Places (px) where each texture that repeats is cut open before it is encoded."""


def labels(count: int) -> list[Label]:
    """Every pattern and ordered colour pair equally often; a longer list begins with the shorter one."""
    every = [(pattern, a, b) for a, b in permutations(PALETTE, 2) for pattern in PATTERNS]
    rng = np.random.default_rng(0)
    rounds = [rng.permutation(len(every)) for _ in range(-(-count // len(every)))]
    return [every[i] for i in np.concatenate(rounds)[:count]]


@torch.no_grad()
def encode(vae: AutoencoderKL, count: int, size: int, work: Path) -> Tensor:
    """Normalised latents (count, 16, size / 8, size / 8) in bfloat16; parts that lie in `work` already are read.

    They are larger than what the transformer sees: crops of latents carry no trace of the encoder's zero padding.
    """
    vae.to(DEVICE, memory_format=torch.channels_last).eval()
    parts = []
    for part in trange(count // PART, desc="encode", mininterval=5):
        path = work / f"flux-latents-{part:03}.pt"
        if not path.exists():
            torch.save(encode_part(vae, part, size), path)
        parts.append(torch.load(path, weights_only=True))
    return torch.cat(parts)


def encode_part(vae: AutoencoderKL, part: int, size: int) -> Tensor:
    return encode_drawn(vae, np.random.default_rng((1, part)), labels((part + 1) * PART)[-PART:], size)


def encode_plain(vae: AutoencoderKL, size: int, work: Path) -> dict[str, Tensor]:
    """For each colour normalised latents (PLAIN, 16, size / 8, size / 8) of images of nothing else."""
    path = work / "flux-plain.pt"
    if not path.exists():
        rng = np.random.default_rng(2)
        torch.save({c: encode_drawn(vae, rng, [("clouds", c, c)] * PLAIN, size) for c in PALETTE}, path)
    return torch.load(path, weights_only=True)


def encode_drawn(vae: AutoencoderKL, rng: np.random.Generator, shown: list[Label], size: int) -> Tensor:
    drawn = torch.from_numpy(np.stack([draw(rng, p, (a, b), size) for p, a, b in shown])).permute(0, 3, 1, 2)
    found = []
    for some in drawn.split(8):
        found.append(normalised(vae, (some.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)))
    return torch.cat(found)


def normalised(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Latents (B, 16, H / 8, W / 8) of images (B, 3, H, W) in -1..1, of mean 0 and deviation 1, in bfloat16."""
    with autocast():
        latents = vae.encode(images.to(DEVICE)).latent_dist.mode()
    return ((latents.float().cpu() - SHIFT) * SCALING).bfloat16()


@torch.no_grad()
def encode_tori(vae: AutoencoderKL, count: int, work: Path) -> tuple[Tensor, list[Label]]:
    """Normalised latents (N, 16, TORUS, TORUS) of `count` textures that repeat, or fewer, and what they show."""
    path = work / f"flux-tori-{count}.pt"
    if not path.exists():
        images, shown = draw_repeating(labels(count), 8 * TORUS, work)
        torch.save([encode_repeating(vae, images), shown * CUTS], path)
    latents, shown = torch.load(path, weights_only=True)
    return latents, shown


def encode_repeating(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Normalised latents (CUTS * B, 16, h, w) in bfloat16 of images (B, 3, H, W), each cut open at CUTS places."""
    vae.to(DEVICE, memory_format=torch.channels_last).eval()
    rng, found = np.random.default_rng(3), []
    places = rng.integers(images.shape[-1], size=(CUTS * len(images), 2)).tolist()
    cut = [image.roll(place, (1, 2)) for image, place in zip([*images] * CUTS, places, strict=True)]
    for some in trange(0, len(cut), 8, desc="encode", mininterval=5):
        with circular(vae.encoder, Axes(True, True)):
            found.append(normalised(vae, torch.stack(cut[some : some + 8])))
    return torch.cat(found)


def crop(latents: list[Tensor], side: int, rng: np.random.Generator) -> Tensor:
    """(B, 16, side, side), each crop from a place of its own."""
    corners = [rng.integers(0, each.shape[-1] - side + 1, 2) for each in latents]
    cut = [each[:, y : y + side, x : x + side] for each, (y, x) in zip(latents, corners, strict=True)]
    return torch.stack(cut).float()
