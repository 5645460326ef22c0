"""Plots and labelled contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

PAPER, GRID, LINE, INK = "#202124", "#3c4043", "#8ab4f8", "#e8eaed"
PLOT = (480, 240)
MARGIN = 34
DIM = 0.5
"""Brightness of an image below a heat map, 0 to 1."""


def sigma_plot(sigmas: Tensor) -> Tensor:
    """Plot noise levels over steps, on a logarithmic scale where they span more than a factor of 10.

    Args:
        sigmas: (steps + 1,), of at least 0.

    Returns:
        (1, 240, 480, 3), 0..1.
    """
    from PIL import ImageDraw

    image = Image.new("RGB", PLOT, PAPER)
    draw = ImageDraw.Draw(image)
    positive = sigmas[sigmas > 0]
    if len(positive) == 0:
        return _to_tensor(image)
    low, high = float(positive.min()), float(positive.max())
    heights = [_height(float(sigma), low, high) for sigma in sigmas]
    for share in (0.0, 0.5, 1.0):
        y = _at(share, PLOT[1], flip=True)
        draw.line([(MARGIN, y), (PLOT[0] - MARGIN, y)], fill=GRID)
    points = [(_at(i / (len(heights) - 1), PLOT[0]), _at(h, PLOT[1], flip=True)) for i, h in enumerate(heights)]
    draw.line(points, fill=LINE, width=2)
    for x, y in points:
        draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=INK)
    draw.text((4, 4), f"sigma {float(sigmas[0]):.4g} to {float(sigmas[-1]):.4g}", fill=INK)
    draw.text((PLOT[0] - 64, PLOT[1] - 16), f"{len(sigmas) - 1} steps", fill=INK)
    return _to_tensor(image)


def _height(sigma: float, low: float, high: float) -> float:
    """Return the height (0..1) of a level; zero is placed below the lowest."""
    if high < 10 * low:
        return sigma / high
    bottom = math.log(low) - math.log(high / low) / 8
    return (math.log(sigma) - bottom) / (math.log(high) - bottom) if sigma > 0 else 0.0


def _at(share: float, length: int, flip: bool = False) -> float:
    return MARGIN + (1 - share if flip else share) * (length - 2 * MARGIN)


def contact_sheet(images: Sequence[Tensor], labels: Sequence[str], columns: int) -> Tensor:
    """Lay out images in rows, each under its label.

    Args:
        images: (H, W, 3) each, of one size, 0..1.
        labels: one for each.
        columns: images in a row.

    Returns:
        (1, rows * (H + label), columns * W, 3).
    """
    cells = [torch.cat([_label(text, image.shape[1]), image.cpu()]) for image, text in zip(images, labels, strict=True)]
    return grid(cells, columns)[None]


def grid(cells: Sequence[Tensor], columns: int) -> Tensor:
    """Lay out cells (h, w, C) of one size row by row: (H, W, C); the rest of the last row is zero."""
    columns = min(columns, len(cells))
    whole = [*cells, *[torch.zeros_like(cells[0])] * (-len(cells) % columns)]
    rows = [torch.cat(whole[i : i + columns], dim=1) for i in range(0, len(whole), columns)]
    return torch.cat(rows)


def cell_of(path: Path, number: int, columns: int, count: int) -> Tensor:
    """Return one of the cells of a sheet that is saved as an image: (1, h, w, 3), 0..1.

    Args:
        number: of the cell, from 0, row by row.
        columns: cells in a row.
        count: cells of the sheet.
    """
    with Image.open(path) as sheet:
        width, height = sheet.width // columns, sheet.height // math.ceil(count / columns)
        left, top = number % columns * width, number // columns * height
        return _to_tensor(sheet.convert("RGB").crop((left, top, left + width, top + height)))


def _label(text: str, width: int) -> Tensor:
    """Return a strip (h, width, 3) with a line of text that grows with the width, shortened to fit."""
    from PIL import ImageDraw, ImageFont

    size = max(11, width // 24)
    font = ImageFont.load_default(size)
    while font.getlength(text) > width - 4 and len(text) > 1:
        text = text[:-1]
    strip = Image.new("RGB", (width, size + size // 2), PAPER)
    ImageDraw.Draw(strip).text((3, size // 8), text, fill=INK, font=font)
    return _to_tensor(strip)[0]


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy())[None].float() / 255


def thumbnail(images: Tensor, label: str, side: int = 192) -> Tensor:
    """Shrink images to `side` px at most and write a label above each.

    Args:
        images: (B, H, W, 3), 0..1.

    Returns:
        (B, label + h, w, 3).
    """
    scale = min(1.0, side / max(images.shape[1:3]))
    height, width = (max(1, round(scale * length)) for length in images.shape[1:3])
    small = F.interpolate(images.movedim(-1, 1).float().cpu(), (height, width), mode="area").movedim(1, -1)
    return torch.cat([contact_sheet([cell], [label], 1) for cell in small])


def overlay(image: Tensor, maps: Tensor) -> Tensor:
    """Lay glowing maps over an image in dark grey.

    Args:
        image: (H, W, 1, 3 or 4), 0..1.
        maps: (N, h, w, 3), black where nothing glows; resized to the image.

    Returns:
        (N, H, W, 3).
    """
    glow = F.interpolate(maps.movedim(-1, 1).float().cpu(), image.shape[:2], mode="bilinear").movedim(1, -1)
    grey = image[..., :3].float().cpu().mean(-1, keepdim=True) * DIM
    return torch.maximum(grey.expand(*image.shape[:2], 3), glow)
