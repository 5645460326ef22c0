"""What the demo's IP-Adapter learns from: latents, images, prompts, and the captions of what is to come out of them.

An image's type says what of it is wanted. `style` is its colours, in the pattern that the prompt names; `composition`
and `character` are its pattern, in the colours that the prompt names; `full` is both, whatever the prompt says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .captions import NAMES, pairs, plain
from .textures import PATTERNS
from .train_unet import Label, Latents, worded
from .train_unet import crop as crop_latents

FULL = 0.9
"""The scale from which an image acts like its caption; it is what the nodes begin with."""

NO_IMAGE = 0.08
"""Share of images replaced by zero embeddings, for guidance."""

EMPTY, CAPTION = 0.7, 0.2
"""With type full: shares of empty prompts and of captions that fit; the others fit another image."""

KEPT = 0.3
"""Weight of the style's blocks in type character, and so the share of its batches in which colours are wanted, too."""

SHARES: dict[str, float] = {
    "full": 0.2,
    "halves": 0.1,
    "halves apart": 0.12,
    "two scales": 0.08,
    "style": 0.16,
    "composition": 0.1,
    "character": 0.12,
    "style and composition": 0.12,
}
"""Shares of the kinds of batches."""


@dataclass
class Pool:
    """Encoded textures with what the image encoder says of them.

    Attributes:
        latents: (N, 4, S, S), and their labels.
        embeds: (N, crops, E).
    """

    latents: Latents
    embeds: Tensor

    def __post_init__(self) -> None:
        self.places: dict[Label, list[int]] = {}
        for i, label in enumerate(self.latents.labels):
            self.places.setdefault(label, []).append(i)

    @property
    def count(self) -> int:
        """Textures."""
        return len(self.embeds)

    def showing(self, label: Label, rng: np.random.Generator) -> int:
        """Return a texture with this label."""
        return int(rng.choice(self.places[label]))

    def any_labels(self, size: int, rng: np.random.Generator) -> list[int]:
        """Return textures drawn at random."""
        return rng.integers(self.count, size=size).tolist()


@dataclass
class Batch:
    """What one update learns from.

    Attributes:
        panes: one latent (B, 4, S, S), or those of two halves.
        wanted: captions of what each pane is to become.
        prompts: B of them.
        embeds: (B, n, E), zero for no image.
        weights: (B, n, H, W) of each image.
        kinds: types of the n images.
        strength: (B,), how far from the prompt to the images the target lies.
        axis: dimension along which panes are put together.
        apart: whether group norms normalise the halves by themselves.
        known: whether the latents show what the images do, details included.
    """

    panes: list[Tensor]
    wanted: list[list[str]]
    prompts: list[str]
    embeds: Tensor
    weights: Tensor
    kinds: tuple[str, ...]
    strength: Tensor
    axis: int = 3
    apart: bool = False
    known: bool = False

    def joined(self, panes: list[Tensor]) -> Tensor:
        """Put panes together."""
        return torch.cat(panes, dim=self.axis)


def make_batch(pool: Pool, side: int, size: int, rng: np.random.Generator) -> Batch:
    """Draw a batch of one kind of SHARES."""
    kind = rng.choice(list(SHARES), p=list(SHARES.values()))
    if kind.startswith("halves"):
        return _halves(pool, side, size // 2, rng, apart=kind.endswith("apart"))
    if kind == "two scales":
        return _two_scales(pool, side, size, rng)
    if kind == "style and composition":
        return _both(pool, side, size, rng)
    return _one(pool, kind, side, size, rng)


def _one(pool: Pool, kind: str, side: int, size: int, rng: np.random.Generator) -> Batch:
    """One image of any type at any scale."""
    images = pool.any_labels(size, rng)
    if kind == "full":
        shown = [pool.latents.labels[i] for i in images]
        texts = [_misleading(pool, label, rng) for label in shown]
        wanted, panes = [plain(p, (a, b)) for p, a, b in shown], images
    else:
        draw = _style if kind == "style" else _pattern
        drawn = [draw(pool, pool.latents.labels[i], kind, rng) for i in images]
        texts, wanted = [text for text, _, _ in drawn], [caption for _, caption, _ in drawn]
        panes = [pool.showing(label, rng) for _, _, label in drawn]
    kept = torch.from_numpy(rng.random(size) >= NO_IMAGE)
    lower = (rng.random(size) < (0.5 if kind == "full" else 0.25)) * rng.random(size) * FULL
    scale = torch.from_numpy(rng.choice([1.0, FULL], size) - lower).float()
    embeds = pool.embeds[images, rng.integers(pool.embeds.shape[1])][:, None] * kept[:, None, None]
    return Batch(
        [crop_latents(pool.latents, panes, side, rng)],
        [wanted],
        texts,
        embeds,
        scale[:, None, None, None] * torch.ones(size, 1, side, side),
        (kind,),
        kept * (scale / FULL).clamp(max=1),
        known=kind == "full",
    )


def _misleading(pool: Pool, label: Label, rng: np.random.Generator) -> str:
    """Return an empty, a fitting or a misleading prompt."""
    chance, other = rng.random(), pool.latents.labels[rng.integers(pool.count)]
    return "" if chance < EMPTY else worded(rng, label if chance < EMPTY + CAPTION else other)


Drawn = tuple[str, str, Label]
"""A prompt, the caption of what is wanted, and what the latents show."""


def _style(pool: Pool, shown: Label, _: str, rng: np.random.Generator) -> Drawn:
    """Take the colours of an image; the pattern is the prompt's."""
    pattern, chance = str(rng.choice(list(PATTERNS))), rng.random()
    label = (pattern, *shown[1:])
    if chance >= 0.75:
        return "", f"{shown[1]} and {shown[2]} texture", label
    other = (pattern, *_colours(rng))
    return _name(pattern, rng) if chance < 0.55 else worded(rng, other), plain(pattern, shown[1:]), label


def _pattern(pool: Pool, shown: Label, kind: str, rng: np.random.Generator) -> Drawn:
    """Take the pattern of an image; the colours are the prompt's, if it names any."""
    a, b = _colours(rng)
    label, chance = (shown[0], a, b), rng.random()
    if chance >= 0.6:
        if kind == "character" and rng.random() < KEPT:
            return "", plain(shown[0], shown[1:]), shown
        return "", _name(shown[0], rng), label
    texture = str(rng.choice([f"{a} and {b} texture", f"{a} and {b}"]))
    other = (str(rng.choice(list(PATTERNS))), a, b)
    return texture if chance < 0.45 else plain(other[0], (a, b)), plain(shown[0], (a, b)), label


def _name(pattern: str, rng: np.random.Generator) -> str:
    return str(rng.choice(NAMES[pattern]))


def _colours(rng: np.random.Generator) -> tuple[str, str]:
    known = pairs(held_out=False)
    return known[rng.integers(len(known))]


def _both(pool: Pool, side: int, size: int, rng: np.random.Generator) -> Batch:
    """The style of one image and the composition of another."""
    style, layout = pool.any_labels(size, rng), pool.any_labels(size, rng)
    labels = [(pool.latents.labels[j][0], *pool.latents.labels[i][1:]) for i, j in zip(style, layout, strict=True)]
    view, second = rng.integers(pool.embeds.shape[1]), str(rng.choice(["composition", "character"]))
    panes = [pool.showing(label, rng) for label in labels]
    return Batch(
        [crop_latents(pool.latents, panes, side, rng)],
        [[plain(p, (a, b)) for p, a, b in labels]],
        [""] * size,
        torch.stack([pool.embeds[style, view], pool.embeds[layout, view]], dim=1),
        FULL * torch.ones(size, 2, side, side),
        ("style", second),
        torch.ones(size),
    )


def _two_scales(pool: Pool, side: int, size: int, rng: np.random.Generator) -> Batch:
    """Two images at 0.9 and 0.1, of which the first one is wanted."""
    first, second = pool.any_labels(size, rng), pool.any_labels(size, rng)
    view, ones = rng.integers(pool.embeds.shape[1]), torch.ones(size, 1, side, side)
    shown = [pool.latents.labels[i] for i in first]
    return Batch(
        [crop_latents(pool.latents, first, side, rng)],
        [[plain(p, (a, b)) for p, a, b in shown]],
        [_misleading(pool, label, rng) for label in shown],
        torch.stack([pool.embeds[first, view], pool.embeds[second, view]], dim=1),
        torch.cat([0.9 * ones, 0.1 * ones], 1),
        ("full", "full"),
        torch.ones(size),
        known=True,
    )


def _halves(pool: Pool, side: int, size: int, rng: np.random.Generator, apart: bool) -> Batch:
    """An image for each half."""
    chosen = [pool.any_labels(size, rng) for _ in range(2)]
    axis, scale, view = int(rng.integers(2, 4)), rng.uniform(FULL, 1), rng.integers(pool.embeds.shape[1])
    here, there = scale * torch.ones(size, 1, side, side), torch.zeros(size, 1, side, side)
    weights = torch.cat([torch.cat([here, there], axis), torch.cat([there, here], axis)], 1)
    labels = [[pool.latents.labels[i] for i in some] for some in chosen]
    return Batch(
        [crop_latents(pool.latents, some, side, rng) for some in chosen],
        [[plain(p, (a, b)) for p, a, b in some] for some in labels],
        [""] * size,
        torch.stack([pool.embeds[some, view] for some in chosen], dim=1),
        weights,
        ("full", "full"),
        torch.ones(size),
        axis,
        apart,
    )
