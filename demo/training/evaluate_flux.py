"""Measure `texture-flux`: does it draw what is named, and does a negative prompt take a named colour away?"""

# diffusers declares its classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ...host.models.loaders import load_checkpoint
from ...host.sampling.ksampler import KSampler
from ...host.sampling.noise import prepare_noise
from ...nodes.flux_negative import TesseraFluxNegative
from .captions import plain
from .classifier import classify, train_classifier
from .evaluate import contact_sheet
from .measures import dominating
from .textures import PALETTE, PATTERNS

STRENGTHS = (0.0, 1.0, 2.0, 4.0, 7.0, 10.0)
Asked = tuple[str, str, str]
"""Pattern, main colour, second colour."""


class Model:
    """A diffusers folder and how to sample it.

    Args:
        folder: of a FluxPipeline.
        steps: of Euler's method on the simple schedule.
        guidance: distilled.
        size: width and height in px.
        end: part of the schedule (0..1) in which a negative acts.
    """

    def __init__(self, folder: Path, steps: int, guidance: float, size: int, end: float = 0.5) -> None:
        self.model, self.clip, self.vae = load_checkpoint(folder)
        self.steps, self.guidance, self.size, self.end = steps, guidance, size, end

    def encode(self, text: str) -> list[list[Any]]:
        assert self.clip is not None
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text), add_dict={"guidance": self.guidance})

    @torch.inference_mode()
    def draw(
        self,
        text: str,
        seed: int,
        negative: str = "",
        strength: float = 0.0,
        method: str = "auto",
        start_percent: float = 0.0,
        end_percent: float | None = None,
    ) -> Tensor:
        """(size, size, 3) in 0..1."""
        assert self.vae is not None
        acts = method, start_percent, self.end if end_percent is None else end_percent
        model = TesseraFluxNegative.execute(self.model, self.encode(negative), strength, *acts).args[0]
        empty = torch.zeros(1, 16, self.size // 8, self.size // 8)
        sampler = KSampler(model, self.steps, "euler", "simple")
        positive = self.encode(text)
        latents = sampler.sample(
            prepare_noise(empty, seed), positive, positive, 1.0, empty, seed=seed, disable_pbar=True
        )
        return self.vae.decode(latents)[0]


def prompts(count: int) -> list[Asked]:
    """Patterns in turn, colours at random."""
    rng, names, colours = np.random.default_rng(6), list(PATTERNS), list(PALETTE)
    pairs = [rng.choice(colours, 2, replace=False) for _ in range(count)]
    return [(names[i % len(names)], str(a), str(b)) for i, (a, b) in enumerate(pairs)]


def share(image: Tensor, colour: str) -> float:
    """Share of pixels of (H, W, 3) in 0..1 to which no other colour of the palette is nearer."""
    palette = torch.tensor(list(PALETTE.values())) / 255
    nearest = torch.cdist(image.reshape(-1, 3), palette).argmin(1)
    return float((nearest == list(PALETTE).index(colour)).float().mean())


def clipped(image: Tensor) -> float:
    """Share of pixels of which a channel is black or full to the last level."""
    levels = (image * 255).round()
    return float(((levels <= 0) | (levels >= 255)).any(-1).float().mean())


def bytes_of(images: Tensor) -> NDArray[np.uint8]:
    return (images.clamp(0, 1) * 255 + 0.5).byte().numpy()


def patterns_seen(judge: torch.nn.Module, images: Tensor) -> list[str]:
    """The patterns that images (N, H, W, 3) show."""
    return [list(PATTERNS)[i] for i in classify(judge, images.permute(0, 3, 1, 2) * 2 - 1).tolist()]


def drawn(model: Model, asked: list[Asked], strength: float, method: str) -> Tensor:
    """(N, size, size, 3): what is asked for, with one of its colours in the negative."""
    jobs = [(i, plain(p, (a, b)), unwanted(i, (p, a, b))) for i, (p, a, b) in enumerate(asked)]
    bar = tqdm(jobs, desc=f"{method} {strength:g}", mininterval=5)
    return torch.stack([model.draw(text, seed, negative, strength, method) for seed, text, negative in bar])


def unwanted(number: int, asked: Asked) -> str:
    """The second or the main colour, in turns."""
    return asked[2 - number % 2]


def negatives(
    model: Model, judge: torch.nn.Module, asked: list[Asked], method: str, plain_ones: Tensor, out: Path
) -> list[dict[str, float]]:
    """For each strength the shares of the colour named in the negative, right patterns and clipped pixels."""
    sheets = [plain_ones, *(drawn(model, asked, strength, method) for strength in STRENGTHS[1:])]
    rows = []
    for strength, images in zip(STRENGTHS, sheets, strict=True):
        found = patterns_seen(judge, images)
        named = [share(p, unwanted(i, a)) for i, (p, a) in enumerate(zip(images, asked, strict=True))]
        row = {
            "strength": strength,
            "colour": float(np.mean(named)),
            "clipped": float(np.mean([*map(clipped, images)])),
        }
        rows.append(row | {"patterns": float(np.mean([f == a[0] for f, a in zip(found, asked, strict=True)]))})
        print({name: round(value, 3) for name, value in rows[-1].items()})
    contact_sheet(bytes_of(torch.stack(sheets, 1)[:13].flatten(0, 1)), out / f"negatives_{method}.png", len(STRENGTHS))
    return rows


def obedience(images: Tensor, judge: torch.nn.Module, asked: list[Asked], out: Path) -> dict[str, float]:
    """Shares of images with both named colours, and with the named pattern."""
    contact_sheet(bytes_of(images), out / "prompts.png", columns=13)
    found = patterns_seen(judge, images)
    colours = [dominating(p) == {a, b} for p, (_, a, b) in zip(bytes_of(images), asked, strict=True)]
    for name in PATTERNS:
        seen = [f for f, a in zip(found, asked, strict=True) if a[0] == name]
        print(f"  {name}: {seen}")
    return {
        "colours": float(np.mean(colours)),
        "patterns": float(np.mean([f == a[0] for f, a in zip(found, asked, strict=True)])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "models" / "texture-flux")
    parser.add_argument("--out", type=Path, required=True, help="folder for contact sheets, numbers and the classifier")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.5)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--end", type=float, default=1.0, help="part of the schedule in which the negative acts")
    parser.add_argument("--methods", nargs="*", default=["nag"])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    judge, real = train_classifier(args.out / "classifier.pt")
    model = Model(args.model, args.steps, args.guidance, args.size, args.end)
    asked = prompts(args.count)
    plain_ones = drawn(model, asked, 0.0, "auto")
    numbers: dict[str, Any] = {"classifier on drawn textures": real, **obedience(plain_ones, judge, asked, args.out)}
    print(numbers)
    numbers |= {method: negatives(model, judge, asked, method, plain_ones, args.out) for method in args.methods}
    (args.out / "flux.json").write_text(json.dumps({**vars(args), **numbers}, default=str, indent=2))


if __name__ == "__main__":
    main()
