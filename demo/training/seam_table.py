"""Seams of textures of a demo model with the seamless nodes and without, and whether they show what was asked.

    python -m tessera.demo.training.seam_table --model texture-sd --out FOLDER

draws 64 textures of 16 prompts with the nodes and as many without, from the same seeds. `--seeds 16` draws four times
as many, which tells smaller differences apart; those of the same settings that are there already are kept, so that
other weights take another folder. `--patterns` and `--size` ask
for others. `seam_chance` says what the measures can tell for each pattern.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...contract.demo import demo_checkpoint
from ...host.sampling.ksampler import KSampler
from ...host.sampling.noise import prepare_noise
from ...nodes.seamless import TesseraSeamlessModel, TesseraSeamlessVAE
from ...tiling.seam import measure
from .captions import NAMES, pairs
from .classifier import classify, train_classifier
from .measures import dominating
from .seam_chance import TITLES, shares
from .textures import PATTERNS

PROMPTS = 16
BLOCK = 4
"""Seeds that are drawn, and kept, together."""

SEEDS = 1000
"""From the seeds of one prompt to those of the next: images of the same noise have their steps in the same places,
and count for less than as many of their own."""

ROLLS = 8
"""Places where each image is cut anew, to see what it has inside."""


class Asked(NamedTuple):
    """A prompt and what it names."""

    pattern: str
    colours: tuple[str, str]

    @property
    def text(self) -> str:
        """In the plain wording."""
        return f"{self.colours[0]} and {self.colours[1]} {NAMES[self.pattern][0]}"


class DrawingSettings(NamedTuple):
    """What is drawn and how."""

    model: str
    prompts: list[Asked]
    size: int
    steps: int
    cfg: float
    sampler: tuple[str, str]


class Obedience(NamedTuple):
    """For each image whether it has the two colours and whether the pattern that were asked for."""

    colours: list[bool]
    pattern: list[bool]


def asked(patterns: Sequence[str]) -> list[Asked]:
    """Sixteen prompts: the patterns in turn, colour pairs that training captions name together."""
    rng, allowed = np.random.default_rng(7), pairs(held_out=False)
    chosen = rng.permutation(len(allowed))[:PROMPTS]
    return [Asked(patterns[i % len(patterns)], allowed[pair]) for i, pair in enumerate(chosen)]


def draw(settings: DrawingSettings, tiling: str, seeds: range) -> Tensor:
    """(prompts * seeds, size, size, 3): the seeds of each prompt in a row."""
    model, clip, vae = demo_checkpoint(settings.model)
    seamless = TesseraSeamlessModel.execute(model, tiling, 0.0, 1.0).args[0]
    decoder = TesseraSeamlessVAE.execute(vae, tiling).args[0]
    negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    side = settings.size // 8
    empty = torch.zeros(1, model.get_model_object("latent_format").latent_channels, side, side)
    images = []
    bar = tqdm(settings.prompts, desc=f"{settings.model}, tiling {tiling}, seeds {seeds}", mininterval=5)
    for number, prompt in enumerate(bar):
        noise = torch.cat([prepare_noise(empty, SEEDS * number + seed) for seed in seeds])
        positive = clip.encode_from_tokens_scheduled(clip.tokenize(prompt.text))
        run = KSampler(seamless, settings.steps, *settings.sampler)
        with torch.inference_mode():
            latents = run.sample(noise, positive, negative, settings.cfg, torch.zeros_like(noise), seed=0)
            images.append(decoder.decode(latents))
    return torch.cat(images)


def block(settings: DrawingSettings, tiling: str, seeds: range, path: Path) -> Tensor:
    """`draw`, once: the images are kept in `path`."""
    if not path.exists():
        torch.save(draw(settings, tiling, seeds), path)
    return torch.load(path, weights_only=True)


def moved(images: Tensor) -> Tensor:
    """Each image rolled to random places of its torus: its border is then a line from inside, as good as any."""
    rng, size = np.random.default_rng(8), images.shape[1]
    return torch.stack(
        [p.roll(shift, (0, 1)) for p in images for shift in rng.integers(size, size=(ROLLS, 2)).tolist()]
    )


def obedience(images: Tensor, wanted: list[Asked], judge: nn.Module) -> Obedience:
    """Judge images (B, H, W, 3)."""
    levels, patterns = (images * 255).round().byte().numpy(), list(PATTERNS)
    kinds = classify(judge, images.movedim(-1, 1) * 2 - 1).tolist()
    return Obedience(
        [dominating(p) == set(w.colours) for p, w in zip(levels, wanted, strict=True)],
        [patterns[kind] == w.pattern for kind, w in zip(kinds, wanted, strict=True)],
    )


def row(name: str, images: Tensor, found: Obedience | None = None) -> str:
    """One line of the table."""
    seams = [(seam.horizontal, seam.vertical) for seam in measure(images)]
    sr = np.median([[axis.sr for axis in both] for both in seams], axis=0)
    passed = [f"{share:.0%}" for share in shares(seams)]
    right = [f"{np.mean(which):.0%}" for which in found] if found else ["", ""]
    return f"| {name} | {sr[0]:.2f} / {sr[1]:.2f} | {' | '.join(passed + right)} |"


def paired(name: str, on: list[bool], off: list[bool]) -> str:
    """Counts of what only one of two images of a seed gets right, and McNemar's exact test of them."""
    lost = sum(b and not a for a, b in zip(on, off, strict=True))
    won = sum(a and not b for a, b in zip(on, off, strict=True))
    both, total = lost + won, len(on)
    p = min(1.0, 2 * sum(comb(both, k) for k in range(min(lost, won) + 1)) / 2**both)
    return (
        f"{name}: right with the nodes {sum(on)} of {total}, without {sum(off)} of {total} "
        f"({(sum(on) - sum(off)) / total:+.1%}); only with {won}, only without {lost}, p = {p:.2f}"
    )


def main() -> None:
    """Draw, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="texture-sd")
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS), choices=list(PATTERNS))
    parser.add_argument("--size", type=int, default=128, help="side of the textures, px")
    parser.add_argument("--seeds", type=int, default=BLOCK, help=f"images of each prompt, a multiple of {BLOCK}")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--sampler", nargs=2, default=("euler", "normal"))
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the classifier and images, which are drawn once"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    judge, _ = train_classifier(args.out / "classifier.pt")
    settings = DrawingSettings(args.model, asked(args.patterns), args.size, args.steps, args.cfg, tuple(args.sampler))
    blocks = [range(first, first + BLOCK) for first in range(0, args.seeds, BLOCK)]
    wanted = [prompt for _ in blocks for prompt in settings.prompts for _ in range(BLOCK)]
    drawn = {"both": [], "off": []}
    kinds = "all" if args.patterns == list(PATTERNS) else "-".join(args.patterns)
    name = "_".join((args.model, str(args.size), kinds, str(args.steps), f"{args.cfg:g}", *args.sampler, str(SEEDS)))
    for seeds in blocks:
        for tiling, parts in drawn.items():
            path = args.out / f"{name}_{tiling}_{seeds.start}.pt"
            parts.append(block(settings, tiling, seeds, path))
    on, off = (torch.cat(parts) for parts in drawn.values())
    found = [obedience(images, wanted, judge) for images in (on, off)]
    print(f"{len(on)} textures of {len(settings.prompts)} prompts, {args.size} px\n")
    print(
        f"| tiling | median SR, x / y | {' | '.join(TITLES)} | colours | pattern |\n|---|{'---|' * (len(TITLES) + 3)}"
    )
    print(row("both", on, found[0]))
    print(row("both, moved at random", moved(on)))
    print(row("off", off, found[1]) + "\n")
    for kind, with_nodes, without in zip(Obedience._fields, *found, strict=True):
        print(paired(kind, with_nodes, without))


if __name__ == "__main__":
    main()
