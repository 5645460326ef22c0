"""Cut Out Foreground beside pymatting: error of alpha and of colours at edges, and time.

Needs `pip install pymatting`. It asks for a trimap, so it can replace the soft edges and the clean colours, not the
search for the motif: both start from the same hard cut, of which `SOFTNESS` px on both sides of the edge are unknown.

    python benchmarks/foreground.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from tessera.images.foreground import clean_colours, colour_alpha
from torch import Tensor
from torch.nn import functional as F

SIDE, SOFTNESS, TOLERANCE = 512, 4, 0.1
MOTIF = torch.tensor([0.8, 0.1, 0.2]).view(3, 1, 1)


def scenes() -> list[tuple[str, Tensor, Tensor]]:
    """(name, background (3, H, W), alpha (H, W)): discs and stars with blurred edges on plain and shaded grounds."""
    y, x = torch.meshgrid(torch.arange(SIDE) / SIDE, torch.arange(SIDE) / SIDE, indexing="ij")
    shades = {"plain": torch.full_like(x, 0.7), "diagonal": 0.2 + 0.35 * (x + y)}
    shades["vignette"] = 0.95 - 1.2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    far, angle = torch.hypot(x - 0.5, y - 0.5), torch.atan2(y - 0.5, x - 0.5)
    radii = {"disc": torch.full_like(far, 0.3), "star": 0.28 + 0.08 * torch.cos(9 * angle)}
    tint = torch.tensor([0.5, 0.9, 1.0]).view(3, 1, 1)
    return [
        (f"{shape} on {ground}, edge of {blur} px", shade * tint, ((radius - far) * SIDE / blur + 0.5).clamp(0, 1))
        for ground, shade in shades.items()
        for shape, radius in radii.items()
        for blur in (1, 4)
    ]


def ours(image: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
    alpha = colour_alpha(image, TOLERANCE, SOFTNESS, False)
    return alpha, clean_colours(image, alpha)


def matted(image: Tensor, hard: Tensor) -> tuple[Tensor, Tensor]:
    """Closed-form matting and multi-level foreground estimation, in pymatting's defaults."""
    from pymatting import estimate_alpha_cf, estimate_foreground_ml

    size = 2 * SOFTNESS + 1
    grown, shrunk = (s * F.max_pool2d(s * hard[None], size, 1, SOFTNESS)[0] for s in (1, -1))
    pixels = image.movedim(0, -1).double().numpy()
    alpha = estimate_alpha_cf(pixels, ((grown + shrunk) / 2).double().numpy())
    colours = estimate_foreground_ml(pixels, alpha)
    return torch.from_numpy(alpha).float(), torch.from_numpy(colours).float().movedim(-1, 0)


def errors(method: Callable[[Tensor, Tensor], Any], noise: float) -> tuple[float, float, float]:
    """Mean errors over all scenes of alpha at edges and of colours at edges, and seconds an image."""
    alphas, colours, seconds = [], [], []
    for _, ground, wanted in scenes():
        grain = noise * torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        image = (MOTIF * wanted + ground * (1 - wanted) + grain).clamp(0, 1)
        hard = colour_alpha(image, TOLERANCE, 0, False)
        begun = time.perf_counter()
        alpha, colour = method(image, hard)
        seconds.append(time.perf_counter() - begun)
        edge = F.max_pool2d(((wanted > 0) & (wanted < 1)).float()[None], 5, 1, 2)[0] > 0
        alphas.append((alpha - wanted)[edge].abs().mean())
        seen = edge & (wanted > 0.1)
        colours.append((colour - MOTIF)[:, seen].abs().mean())
    return float(torch.stack(alphas).mean()), float(torch.stack(colours).mean()), sorted(seconds)[len(seconds) // 2]


def main() -> None:
    for noise in (0.0, 0.01, 0.03):
        for name, method in (("ours", ours), ("pymatting", matted)):
            alpha, colour, seconds = errors(method, noise)
            print(f"noise {noise:.2f}  {name:10} alpha {alpha:.4f}  colour {colour:.4f}  {1000 * seconds:.0f} ms")


if __name__ == "__main__":
    main()
