"""A small net that tells the patterns apart, trained on drawn textures alone: the judge of generated ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from .common import DEVICE, learning_rate
from .textures import PALETTE, PATTERNS, draw

ROOM = 32
"""Pixels by which textures to learn from are larger than their crops."""


class Classifier(nn.Module):
    """(B, 3, H, W) in -1..1 -> (B, number of patterns) logits, the same whatever the colours are."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (1, 24, 48, 96, 128, 128), []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], len(PATTERNS)))

    def forward(self, images: Tensor) -> Tensor:
        grey = shape(images)
        if self.training:
            return self.net(grey * (2 * torch.randint(2, (len(grey), 1, 1, 1), device=grey.device) - 1))
        return (self.net(grey) + self.net(-grey)) / 2


def shape(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W): each along the line between its two colours, mean 0, deviation 1, either sign.

    Blue beside purple shows its pattern as well as black beside white does, to an eye; to a net it would not.
    """
    colours = images.flatten(2)
    colours = colours - colours.mean(2, keepdim=True)
    line = torch.linalg.eigh(colours @ colours.mT / colours.shape[2]).eigenvectors[..., -1:]
    grey = (colours * line).sum(1, keepdim=True)
    return (grey / grey.std(2, keepdim=True).clamp_min(1e-3)).unflatten(2, images.shape[2:])


def drawn(count: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Textures of every pattern in turn: (count, 3, size, size) in -1..1, and the pattern's index (count,)."""
    rng, names, colours = np.random.default_rng(seed), list(PATTERNS), list(PALETTE)
    kinds = torch.arange(count) % len(names)
    pairs = [rng.choice(colours, 2, replace=False) for _ in range(count)]
    images = np.stack([draw(rng, names[k], (a, b), size) for k, (a, b) in zip(kinds.tolist(), pairs, strict=True)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1, kinds


def blurred(images: Tensor) -> Tensor:
    """Up to three 3x3 means, mixed in by a random share, and a little noise: what an image loses in an autoencoder."""
    soft = images
    for _ in range(int(torch.randint(1, 4, ()))):
        soft = F.avg_pool2d(F.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.rand(len(images), 1, 1, 1, device=images.device)
    return torch.lerp(images, soft, share) + 0.05 * share * torch.randn_like(images)


def train_classifier(path: Path, count: int = 3900, size: int = 128, steps: int = 1200) -> tuple[nn.Module, float]:
    """Train on crops of `count` drawn textures, or load `path`; returns it and its accuracy on 390 others."""
    torch.manual_seed(0)
    net = Classifier().to(DEVICE)
    if path.exists():
        net.load_state_dict(torch.load(path, map_location=DEVICE, weights_only=True))
    else:
        _fit(net, *drawn(count, size + ROOM, seed=2), size, steps)
        torch.save(net.state_dict(), path)
    net.eval()
    images, kinds = drawn(390, size, seed=3)
    return net, float((classify(net, images) == kinds).float().mean())


def _fit(net: nn.Module, images: Tensor, kinds: Tensor, size: int, steps: int) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    for step in trange(steps, desc="classifier", mininterval=5):
        chosen = torch.randint(len(images), (32,))
        y, x = torch.randint(ROOM + 1, (2,)).tolist()
        cut = images[chosen, :, y : y + size, x : x + size]
        logits = net(blurred((cut if torch.rand(()) < 0.5 else cut.flip(3)).to(DEVICE)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, 2e-3, 50)
        optimizer.zero_grad()
        F.cross_entropy(logits, kinds[chosen].to(DEVICE)).backward()
        optimizer.step()


@torch.no_grad()
def classify(net: nn.Module, images: Tensor) -> Tensor:
    """Indices into PATTERNS (B,) of images (B, 3, H, W) in -1..1."""
    return torch.cat([net(part.to(DEVICE)).argmax(1).cpu() for part in images.split(64)])
