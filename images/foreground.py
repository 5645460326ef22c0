"""Motifs cut out of their background, told by its colour at the border of the picture; and colours that are free of it.

Pictures are (3, H, W) in 0..1, sRGB; alpha is (H, W) in 0..1, where 1 is the motif.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# The frame that counts as the picture's border: one in so many parts of the shorter side.
RIM = 64
# Of the surfaces that are laid through the background, each through what the one before found of it: region growing by
# surfaces of rising order, as in Besl and Jain, "Segmentation through variable-order surface fitting", 1988.
ORDERS = (1, 1, 1, 2, 2, 2, 2, 2)
# The least width of a cell in which colours are counted.
FINEST = 0.01
# Of the slopes of the background against its mean, so that a few pixels do not make a steep one.
DAMPING = 1e-4
# Of alpha: what is less, or less than this from 1, is noise.
NOISE = 0.05
# Box radii in px of the estimate of colours, coarse and fine, as in the paper.
RADII = (90, 6)

# Linear sRGB to the responses of cones, and their cube roots to OKLab: Ottosson, "A perceptual color space for image
# processing", 2020.
_CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
_LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]


def oklab(rgb: Tensor) -> Tensor:
    """(3, ...) sRGB in 0..1 as OKLab: lightness 0..1 and two axes of colour, where 0.02 is a difference just seen."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    cones = torch.einsum("ij,j...->i...", rgb.new_tensor(_CONES), linear)
    return torch.einsum("ij,j...->i...", rgb.new_tensor(_LAB), cones.clamp(min=0) ** (1 / 3))


def colour_alpha(image: Tensor, tolerance: float, softness: int, holes: bool) -> Tensor:
    """Cut out what differs from the background, which is plain or changes slowly and touches the border.

    Args:
        image: (3, H, W).
        tolerance: the distance in OKLab up to which a colour is the background's.
        softness: px on both sides of an edge where alpha follows the mixture of colours; 0 makes hard edges.
        holes: the background's colour inside of the motif is background, too.

    Returns:
        alpha (H, W); all 0 where there is nothing but background.
    """
    lab = oklab(image)
    rim = _rim(image[0])
    background = usual_colour(lab[:, rim], tolerance)[:, None, None]
    found = torch.zeros_like(rim)
    for order in ORDERS:
        near = (lab - background).norm(dim=0) <= tolerance
        before, found = found, near if holes else connected(near, rim)
        if not found.any() or torch.equal(found, before):
            break
        background = surface(lab, found, order)
    return soft_edges(image, ~found, softness)


def _rim(plane: Tensor) -> Tensor:
    """(H, W): whether a pixel belongs to the picture's border."""
    height, width = plane.shape
    depth = max(1, min(height, width) // RIM)
    rim = torch.ones_like(plane, dtype=torch.bool)
    rim[depth : height - depth, depth : width - depth] = False
    return rim


def usual_colour(colours: Tensor, tolerance: float) -> Tensor:
    """The mean (3) of the densest cell of colours (3, N), in cells as wide as the tolerance."""
    cells = (colours / max(tolerance, FINEST)).round()
    _, cell, counts = cells.unique(dim=1, return_inverse=True, return_counts=True)
    return colours[:, cell == counts.argmax()].mean(1)


def surface(lab: Tensor, where: Tensor, order: int) -> Tensor:
    """The plane (order 1) or quadratic surface (2) nearest to the colours of a part (H, W) of a picture: (3, H, W)."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, length).to(lab) for length in where.shape), indexing="ij")
    terms = torch.stack([torch.ones_like(x), x, y, x * y, x * x, y * y][: 3 * order], -1)
    known, colours = terms[where], lab[:, where].T
    means = (known.T @ torch.cat([known, colours], 1)).double() / len(known)
    squares, products = means.split([3 * order, 3], 1)
    damping = DAMPING * torch.eye(3 * order, dtype=squares.dtype, device=lab.device)
    damping[0, 0] = 0
    return (terms @ torch.linalg.solve(squares + damping, products).to(terms)).movedim(-1, 0)


def connected(area: Tensor, start: Tensor) -> Tensor:
    """The part of an area that is connected to a start: (H, W) of truth values, neighbours by edges.

    Whole runs are filled at once, rows and columns by turns, so that it takes a pass for every bend of a way.
    """
    reached = area & start
    while True:
        grown = _fill_runs(area.T, _fill_runs(area, reached).T).T
        if torch.equal(grown, reached):
            return reached
        reached = grown


def _fill_runs(area: Tensor, reached: Tensor) -> Tensor:
    """Fill each run of pixels in a row that is reached somewhere."""
    runs = (~area).cumsum(1)
    hit = torch.zeros(len(area), area.shape[1] + 1, dtype=torch.bool, device=area.device)
    row, column = reached.nonzero(as_tuple=True)
    hit[row, runs[row, column]] = True
    return area & hit.gather(1, runs)


def soft_edges(image: Tensor, motif: Tensor, softness: int) -> Tensor:
    """Alpha (H, W) of a motif (H, W) of truth values: near its edge, how much of its colour a pixel has.

    A pixel lies between the means of the nearest colours that belong wholly to the motif and wholly to the background;
    where one of them is out of reach, the edge is hard.
    """
    if not softness:
        return motif.to(image)
    inside, outside = _shrunk(motif, softness), _shrunk(~motif, softness)
    ours, there = _nearby(image, inside, 2 * softness + 1)
    theirs, away = _nearby(image, outside, 2 * softness + 1)
    way = ours - theirs
    part = ((image - theirs) * way).sum(0) / way.square().sum(0).clamp(min=1e-6)
    part = ((part - NOISE) / (1 - 2 * NOISE)).clamp(0, 1)
    sure = inside | outside | ~there | ~away
    return torch.where(sure, motif.to(image), part)


def _shrunk(area: Tensor, by: int) -> Tensor:
    wider = F.max_pool2d((~area).float()[None], (2 * by + 1, 1), 1, (by, 0))
    return F.max_pool2d(wider, (1, 2 * by + 1), 1, (0, by))[0] == 0


def _nearby(image: Tensor, where: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """The mean colour (3, H, W) of a part of a picture within a radius, and whether (H, W) there is any."""
    share = _box(where.to(image)[None], radius)
    return _box(image * where, radius) / share.clamp(min=1e-6), share[0] > 1e-6


def _box(x: Tensor, radius: int) -> Tensor:
    """The means (C, H, W) over squares, of what lies in the picture."""
    for axis in (1, 2):
        length = x.shape[axis]
        places = torch.arange(length, device=x.device)
        first, last = (places - radius).clamp(min=0), (places + radius + 1).clamp(max=length)
        # In float64, so that a sum less another one keeps what is between them.
        sums = F.pad(x.double().movedim(axis, -1).cumsum(-1), (1, 0))
        means = (sums[..., last] - sums[..., first]) / (last - first)
        x = means.to(x).movedim(-1, axis)
    return x


def clean_colours(image: Tensor, alpha: Tensor) -> Tensor:
    """The motif's own colours (3, H, W), without the background's share at soft edges; continued where alpha is 0.

    Blur fusion: Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021. Where alpha is 1, nothing changes.
    """
    motif, background = image, image
    for radius in RADII:
        # A picture is its own neighbourhood.
        radius = min(radius, max(image.shape[1:]))
        motif = _box(motif * alpha, radius) / _box(alpha[None], radius).clamp(min=1e-6)
        background = _box(background * (1 - alpha), radius) / _box(1 - alpha[None], radius).clamp(min=1e-6)
        motif = (motif + alpha * (image - alpha * motif - (1 - alpha) * background)).clamp(0, 1)
    return torch.where(alpha >= 1, image, motif)
