"""Fit the colours of a demo model's latents, for previews while it denoises: `latent_colours.py FOLDER`."""

# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from .captions import pairs
from .textures import PATTERNS, draw

SIZE = 128


@torch.no_grad()
def fit(vae: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Return factors (C, 3) and a bias (3,) from normalised latents to colours in -1..1, by least squares."""
    rng = np.random.default_rng(0)
    drawn = [draw(rng, pattern, colours, SIZE) for colours in pairs(held_out=False)[::4] for pattern in PATTERNS]
    pixels = torch.from_numpy(np.stack(drawn)).movedim(-1, 1).float() / 127.5 - 1
    latents = torch.cat([vae.encode(some).latent_dist.mode() for some in pixels.split(8)])
    latents = (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    colours = F.avg_pool2d(pixels, SIZE // latents.shape[-1]).movedim(1, -1).flatten(0, -2)
    known = F.pad(latents.movedim(1, -1).flatten(0, -2), (0, 1), value=1.0)
    found = torch.linalg.lstsq(known, colours).solution
    return found[:-1], found[-1]


def main() -> None:
    """Write `latent_colours.json` into the folder of a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    factors, bias = fit(AutoencoderKL.from_pretrained(folder / "vae"))
    rounded = {"factors": [_rounded(row) for row in factors], "bias": _rounded(bias)}
    (folder / "latent_colours.json").write_text(json.dumps(rounded) + "\n", encoding="utf-8")


def _rounded(row: Tensor) -> list[float]:
    return [round(value, 4) for value in row.tolist()]


if __name__ == "__main__":
    main()
