"""Measure how much of a named colour Flux Negative Prompt leaves on `texture-flux`, with the node's default settings.

The prompts of `--pairs held-out` name colours together that no prompt names on which the scale was chosen
(`--pairs others`).

    python -m tessera.demo.training.negative_table --out FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...nodes.flux_negative import TesseraFluxNegative
from .captions import pairs, plain
from .classifier import train_classifier
from .evaluate import contact_sheet
from .evaluate_flux import Asked, Model, bytes_of, clipped, patterns_seen, share, unwanted
from .textures import PATTERNS

STRENGTHS = (0.0, 2.0, 4.0, 10.0)
FORMER = {"method": "auto", "end_percent": 0.5}
"""Defaults of the node's first version."""
LEAST = 1e-3
"""Shares of a colour below it count as this."""


def defaults() -> dict[str, Any]:
    """Return what a new node has in the editor, without its strength."""
    declared: list[Any] = list(TesseraFluxNegative.define_schema().inputs)
    return {each.id: each.default for each in declared if each.optional}


def prompts(count: int, held_out: bool) -> list[Asked]:
    """Return `count` different prompts as (pattern, main, second colour), patterns in turn."""
    rng, names, allowed = np.random.default_rng(41 if held_out else 40), list(PATTERNS), pairs(held_out)
    order = {name: rng.permutation(len(allowed)) for name in names}
    return [(names[i % len(names)], *allowed[order[names[i % len(names)]][i // len(names)]]) for i in range(count)]


def drawn(model: Model, asked: list[Asked], strength: float, first_seed: int, settings: dict[str, Any]) -> Tensor:
    """(N, size, size, 3): what is asked for, with one of its colours in the negative."""
    texts = [(plain(pattern, (a, b)), unwanted(i, (pattern, a, b))) for i, (pattern, a, b) in enumerate(asked)]
    return torch.stack(
        [model.draw(text, first_seed + i, negative, strength, **settings) for i, (text, negative) in enumerate(texts)]
    )


def named(images: Tensor, asked: list[Asked]) -> NDArray[np.float64]:
    """(N,) shares of each image that have the colour in its negative."""
    colours = [unwanted(i, each) for i, each in enumerate(asked)]
    return np.array([share(*each) for each in zip(images, colours, strict=True)])


def row(judge: torch.nn.Module, asked: list[Asked], images: Tensor, before: NDArray[np.float64]) -> dict[str, float]:
    """Describe images whose shares of the named colour were `before` (N,) without a negative."""
    shares = named(images, asked)
    left = shares / before.clip(LEAST)
    found = patterns_seen(judge, images)
    return {
        "share": float(shares.mean()),
        "median of what is left": float(np.median(left)),
        "at most half left": float((left <= 0.5).mean()),
        "at most a tenth left": float((left <= 0.1).mean()),
        "pattern": float(np.mean([f == a[0] for f, a in zip(found, asked, strict=True)])),
        "clipped": float(np.mean([*map(clipped, images)])),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "models" / "texture-flux")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheet, numbers and the classifier")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--pairs", choices=["held-out", "others"], default="held-out")
    parser.add_argument("--former", action="store_true", help="with the defaults of the first version")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    judge, _ = train_classifier(args.out / "classifier.pt")
    settings = defaults() | (FORMER if args.former else {})
    held_out = args.pairs == "held-out"
    asked, model = prompts(args.count, held_out), Model(args.model, steps=20, guidance=3.5, size=128)
    sheets = {each: drawn(model, asked, each, 30000 if held_out else 10000, settings) for each in STRENGTHS}
    before = named(sheets[0.0], asked)
    rows = {strength: row(judge, asked, images, before) for strength, images in sheets.items()}
    for strength, each in rows.items():
        print(f"{strength:g}", {name: round(value, 3) for name, value in each.items()}, flush=True)
    name = f"negative_{args.pairs}{'_former' * args.former}"
    together = torch.stack(list(sheets.values()), 1)[:13].flatten(0, 1)
    contact_sheet(bytes_of(together), args.out / f"{name}.png", len(STRENGTHS))
    (args.out / f"{name}.json").write_text(json.dumps({"settings": settings, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
