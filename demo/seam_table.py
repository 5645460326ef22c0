"""Seams of 64 textures of a demo model with the seamless nodes and without, and whether they show what was asked.

python -m tessera.demo.seam_table --model texture-sd
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..contract import demo_checkpoint
from ..host.noise import prepare_noise
from ..host.samplers import KSampler
from ..nodes.seamless import TesseraSeamlessModel, TesseraSeamlessVAE
from ..tiling.seam import measure
from .captions import NAMES, pairs
from .classifier import classify, train_classifier
from .measures import dominating
from .textures import PATTERNS

SIZE = 128
PROMPTS = 16
SEEDS = 4


class Asked(NamedTuple):
    """A prompt and what it names."""

    pattern: str
    colours: tuple[str, str]

    @property
    def text(self) -> str:
        """In the plain wording."""
        return f"{self.colours[0]} and {self.colours[1]} {NAMES[self.pattern][0]}"


def asked() -> list[Asked]:
    """Sixteen prompts: every pattern at least once, colour pairs that training captions name together."""
    rng, allowed, patterns = np.random.default_rng(7), pairs(held_out=False), list(PATTERNS)
    chosen = rng.permutation(len(allowed))[:PROMPTS]
    return [Asked(patterns[i % len(patterns)], allowed[pair]) for i, pair in enumerate(chosen)]


def draw(name: str, tiling: str, steps: int, cfg: float, sampler: tuple[str, str]) -> Tensor:
    """(PROMPTS * SEEDS, SIZE, SIZE, 3): the seeds of each prompt in a row."""
    model, clip, vae = demo_checkpoint(name)
    seamless = TesseraSeamlessModel.execute(model, tiling, 0.0, 1.0).args[0]
    decoder = TesseraSeamlessVAE.execute(vae, tiling).args[0]
    negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    empty = torch.zeros(1, model.get_model_object("latent_format").latent_channels, SIZE // 8, SIZE // 8)
    noise = torch.cat([prepare_noise(empty, seed) for seed in range(SEEDS)])
    pictures = []
    for prompt in tqdm(asked(), desc=f"{name}, tiling {tiling}", mininterval=5):
        positive = clip.encode_from_tokens_scheduled(clip.tokenize(prompt.text))
        run = KSampler(seamless, steps, *sampler)
        with torch.inference_mode():
            latents = run.sample(noise, positive, negative, cfg, torch.zeros_like(noise), seed=0)
            pictures.append(decoder.decode(latents))
    return torch.cat(pictures)


def moved(pictures: Tensor) -> Tensor:
    """Each picture rolled at random on its torus: its border is then a line from inside, as good as any other."""
    rng = np.random.default_rng(8)
    return torch.stack([p.roll(tuple(rng.integers(SIZE, size=2).tolist()), (0, 1)) for p in pictures])


def row(name: str, pictures: Tensor, judge: nn.Module) -> str:
    """One line of the table."""
    seams = measure(pictures)
    axes = [(seam.horizontal, seam.vertical) for seam in seams]
    sr = np.median([[axis.sr for axis in both] for both in axes], axis=0)
    sharp = np.mean([max(axis.sr_max for axis in both) <= 1.0 for both in axes])
    faint = np.mean([max(axis.cr for axis in both) <= 1.5 for both in axes])
    unseen = np.mean([not any(axis.visible for axis in both) for both in axes])
    wanted = [prompt for prompt in asked() for _ in range(SEEDS)]
    levels = (pictures * 255).round().byte().numpy()
    colours = np.mean([dominating(p) == set(w.colours) for p, w in zip(levels, wanted, strict=True)])
    kinds, patterns = classify(judge, pictures.movedim(-1, 1) * 2 - 1).tolist(), list(PATTERNS)
    right = np.mean([patterns[kind] == w.pattern for kind, w in zip(kinds, wanted, strict=True)])
    shares = " | ".join(f"{share:.0%}" for share in (sharp, faint, unseen, colours, right))
    return f"| {name} | {sr[0]:.2f} / {sr[1]:.2f} | {shares} |"


def main() -> None:
    """Draw, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="texture-sd")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--sampler", nargs=2, default=("euler", "normal"))
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the classifier and pictures, which are drawn once"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    judge, _ = train_classifier(args.out / "classifier.pt")
    print("| tiling | median SR, x / y | SRmax <= 1 | CR <= 1.5 | no seam shows | colours | pattern |")
    print("|---|---|---|---|---|---|---|")
    for tiling in ("both", "off"):
        path = args.out / f"{args.model}_{tiling}.pt"
        if not path.exists():
            torch.save(draw(args.model, tiling, args.steps, args.cfg, tuple(args.sampler)), path)
        pictures = torch.load(path, weights_only=True)
        print(row(tiling, pictures, judge), flush=True)
        if tiling == "both":
            print(row("both, moved at random", moved(pictures), judge), flush=True)


if __name__ == "__main__":
    main()
