"""Motifs cut out of a background that is found by its colour at the border, and colours without its share.

Images are (3, H, W) in 0..1, sRGB; alpha is (H, W) in 0..1, where 1 is the motif.

By hand: pymatting could replace only the edges, as it needs a trimap, and brings 200 MB of numba and llvmlite. Mean
errors at edges with noise of 0, 1 and 3 %: alpha 0.006, 0.007, 0.010 here, 0.000, 0.005, 0.016 there; colours 0.004,
0.009, 0.021 here, 0.000, 0.006, 0.017 there; both take some 0.4 s at 512 px (`benchmarks/foreground.py`).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

RIM = 64
"""Depth of the frame that counts as the border, as a fraction of the shorter side: 1 / RIM."""
ORDERS = (1, 1, 1, 2, 2, 2, 2, 2)
"""Orders of the surfaces fitted to the background, each to what the one before found: region growing by surfaces of
rising order (Besl and Jain, "Segmentation through variable-order surface fitting", 1988)."""
FINEST = 0.01
"""Least width of a histogram cell, in OKLab."""
DAMPING = 1e-4
"""Ridge regularisation of the slope terms, for when few background pixels are known."""
NOISE = 0.05
"""Alpha below this is clamped to 0, above 1 minus this to 1."""
RADII = (90, 6)
"""Box radii in px of the colour estimate, coarse and fine, as in the paper."""

_CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
"""Linear sRGB to the responses of cones, and their cube roots to OKLab: Ottosson, "A perceptual color space for image
processing", 2020."""
_LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]


def oklab(rgb: Tensor) -> Tensor:
    """Convert sRGB (3, ...), 0..1, to OKLab: lightness 0..1 and two colour axes; 0.02 is just noticeable."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    cones = torch.einsum("ij,j...->i...", rgb.new_tensor(_CONES), linear)
    return torch.einsum("ij,j...->i...", rgb.new_tensor(_LAB), cones.clamp(min=0) ** (1 / 3))


def colour_alpha(image: Tensor, tolerance: float, softness: int, holes: bool) -> Tensor:
    """Cut out what differs from the background, which is plain or changes slowly and touches the border.

    Args:
        image: (3, H, W).
        tolerance: distance in OKLab up to which a colour counts as background.
        softness: px on both sides of an edge where alpha follows the mixture of colours; 0 makes hard edges.
        holes: whether the background's colour inside the motif is background, too.

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
    """Return which pixels (H, W) belong to the image's border."""
    height, width = plane.shape
    depth = max(1, min(height, width) // RIM)
    rim = torch.ones_like(plane, dtype=torch.bool)
    rim[depth : height - depth, depth : width - depth] = False
    return rim


def usual_colour(colours: Tensor, tolerance: float) -> Tensor:
    """Return the mean (3) of the densest cell of colours (3, N), in cells as wide as the tolerance."""
    cells = (colours / max(tolerance, FINEST)).round()
    _, cell, counts = cells.unique(dim=1, return_inverse=True, return_counts=True)
    return colours[:, cell == counts.argmax()].mean(1)


def surface(lab: Tensor, where: Tensor, order: int) -> Tensor:
    """Fit a plane (order 1) or quadratic surface (2) to the colours of a region (H, W); return it as (3, H, W)."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, length).to(lab) for length in where.shape), indexing="ij")
    terms = torch.stack([torch.ones_like(x), x, y, x * y, x * x, y * y][: 3 * order], -1)
    known, colours = terms[where], lab[:, where].T
    means = (known.T @ torch.cat([known, colours], 1)).double() / len(known)
    squares, products = means.split([3 * order, 3], 1)
    damping = DAMPING * torch.eye(3 * order, dtype=squares.dtype, device=lab.device)
    damping[0, 0] = 0
    fitted = terms @ torch.linalg.solve(squares + damping, products).to(terms)
    return rearrange(fitted, "h w c -> c h w")


def connected(area: Tensor, start: Tensor) -> Tensor:
    """Return the part of an area that is 4-connected to a start, all (H, W) booleans.

    Rows and columns are filled in turn, whole runs at once, so it takes one pass for each bend of a path.
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
    """Return alpha (H, W) of a motif, a boolean mask (H, W): near its edge, how much of its colour a pixel has.

    Alpha is the position of a pixel between the mean colours of the nearest pure motif and pure background; where
    one of them is out of reach, the edge is hard.
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
    """Return the mean colour (3, H, W) of a region within a radius, and where (H, W) there is any."""
    share = _box(where.to(image)[None], radius)
    return _box(image * where, radius) / share.clamp(min=1e-6), share[0] > 1e-6


def _box(x: Tensor, radius: int) -> Tensor:
    """Return box means (C, H, W), over the part of each box inside the image."""
    for axis in (1, 2):
        length = x.shape[axis]
        places = torch.arange(length, device=x.device)
        first, last = (places - radius).clamp(min=0), (places + radius + 1).clamp(max=length)
        # In float64, since differences of cumulative sums cancel.
        sums = F.pad(x.double().movedim(axis, -1).cumsum(-1), (1, 0))
        means = (sums[..., last] - sums[..., first]) / (last - first)
        x = means.to(x).movedim(-1, axis)
    return x


def clean_colours(image: Tensor, alpha: Tensor) -> Tensor:
    """Return the motif's own colours (3, H, W), without the background's share; continued where alpha is 0.

    Blur fusion: Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021. Where alpha is 1, nothing changes.
    """
    motif, background = image, image
    for radius in RADII:
        # A box is no larger than the image.
        radius = min(radius, max(image.shape[1:]))
        motif = _box(motif * alpha, radius) / _box(alpha[None], radius).clamp(min=1e-6)
        background = _box(background * (1 - alpha), radius) / _box(1 - alpha[None], radius).clamp(min=1e-6)
        motif = (motif + alpha * (image - alpha * motif - (1 - alpha) * background)).clamp(0, 1)
    return torch.where(alpha >= 1, image, motif)
