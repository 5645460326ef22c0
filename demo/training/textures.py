"""Procedural textures of two colours: what the demo models are trained on.

Every pattern is a function of pixel coordinates that returns coverage of the second colour in 0..1. Phase, scale and
angle are drawn at random and never made to fit the crop, so crops do not tile: an image that tiles is the merit of the
node, not of the data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Pattern = Callable[[np.random.Generator, Field, Field], Field]

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (205, 35, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 222, 60),
    "green": (45, 140, 60),
    "teal": (40, 190, 190),
    "blue": (30, 75, 205),
    "purple": (150, 45, 150),
    "pink": (245, 150, 195),
    "black": (25, 25, 28),
    "white": (242, 242, 238),
}
SUPERSAMPLING = 2
SCALE = 1.3
"""Pixels per unit of the sizes below: large enough for lines to survive a VAE of factor 8."""


def _rotated(rng: np.random.Generator, u: Field, v: Field, most: float) -> tuple[Field, Field]:
    angle = rng.uniform(-most, most)
    c, s = np.cos(angle), np.sin(angle)
    return (c * u - s * v).astype(np.float32), (s * u + c * v).astype(np.float32)


def _hash(i: NDArray[np.int64], j: NDArray[np.int64], salt: int) -> Field:
    """Uniform 0..1 per lattice cell, the same wherever the cell is met."""
    h = (i * 374761393 + j * 668265263 + salt * 974711) & 0x7FFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF).astype(np.float32) / 65535.0


def _noise(rng: np.random.Generator, u: Field, v: Field, scale: float) -> Field:
    """Value noise in -1..1 whose features are about `scale` pixels wide."""
    salt = int(rng.integers(1 << 20))
    x, y = u / scale, v / scale
    i, j = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = x - i, y - j
    sx, sy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    top = _hash(i, j, salt) * (1 - sx) + _hash(i + 1, j, salt) * sx
    low = _hash(i, j + 1, salt) * (1 - sx) + _hash(i + 1, j + 1, salt) * sx
    return (2 * (top * (1 - sy) + low * sy) - 1).astype(np.float32)


def _triangle(x: Field) -> Field:
    """Triangle wave of period 1 in -1..1."""
    return (4 * np.abs(x - np.floor(x + 0.5)) - 1).astype(np.float32)


def _nearest(rng: np.random.Generator, u: Field, v: Field, size: float) -> tuple[Field, Field]:
    """Distances (in cells) to the nearest and second nearest of jittered lattice points."""
    salt = int(rng.integers(1 << 20))
    x, y = u / size, v / size
    i, j = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    distances = [
        np.hypot(
            x - (i + a) - 0.15 - 0.7 * _hash(i + a, j + b, salt),
            y - (j + b) - 0.15 - 0.7 * _hash(i + a, j + b, salt + 1),
        )
        for a in (-1, 0, 1)
        for b in (-1, 0, 1)
    ]
    ordered = np.partition(np.stack(distances), 1, axis=0)
    return ordered[0], ordered[1]


def stripes(rng: np.random.Generator, u: Field, v: Field) -> Field:
    u, v = _rotated(rng, u, v, np.pi / 2)
    return (np.mod(u / rng.uniform(16, 36), 1) < rng.uniform(0.4, 0.6)).astype(np.float32)


def checkers(rng: np.random.Generator, u: Field, v: Field) -> Field:
    u, v = _rotated(rng, u, v, 0.06)
    p = rng.uniform(12, 26)
    return np.mod(np.floor(u / p) + np.floor(v / p), 2).astype(np.float32)


def dots(rng: np.random.Generator, u: Field, v: Field) -> Field:
    p = rng.uniform(20, 36)
    row = np.floor(v / p)
    shift = 0.5 * np.mod(row, 2) if rng.random() < 0.5 else 0.0
    return (np.hypot(np.mod(u / p + shift, 1) - 0.5, np.mod(v / p, 1) - 0.5) < rng.uniform(0.27, 0.36)).astype(
        np.float32
    )


def bricks(rng: np.random.Generator, u: Field, v: Field) -> Field:
    h = rng.uniform(15, 24)
    w, mortar = h * rng.uniform(1.9, 2.3), rng.uniform(3.4, 4.6)
    row = np.floor(v / h)
    x = u + 0.5 * w * np.mod(row, 2)
    inside = (np.mod(x, w) > mortar) & (np.mod(v, h) > mortar)
    shade = 1 - 0.14 * _hash(np.floor(x / w).astype(np.int64), row.astype(np.int64), int(rng.integers(1 << 20)))
    return 1 - inside * shade


def waves(rng: np.random.Generator, u: Field, v: Field) -> Field:
    length = rng.uniform(32, 60)
    bend = rng.uniform(0.13, 0.19) * length * np.sin(2 * np.pi * u / length)
    return (np.mod((v + bend) / rng.uniform(18, 32), 1) < rng.uniform(0.42, 0.58)).astype(np.float32)


def zigzag(rng: np.random.Generator, u: Field, v: Field) -> Field:
    length = rng.uniform(26, 44)
    bend = 0.25 * length * _triangle(u / length)
    return (np.mod((v + bend) / rng.uniform(18, 30), 1) < rng.uniform(0.42, 0.58)).astype(np.float32)


def wood(rng: np.random.Generator, u: Field, v: Field) -> Field:
    angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(10, 70)
    x, y = u - u.mean() - far * np.cos(angle), v - v.mean() - far * np.sin(angle)
    radius = np.hypot(x, y * rng.uniform(0.7, 1.0)) + 5 * _noise(rng, u, v, rng.uniform(24, 40))
    ring = np.mod(radius / rng.uniform(11, 17), 1)
    return np.clip(4 * np.minimum(ring - 0.45, 1.25 * (1 - ring)), 0, 1).astype(np.float32)


def marble(rng: np.random.Generator, u: Field, v: Field) -> Field:
    u, v = _rotated(rng, u, v, np.pi)
    turbulence = sum(_noise(rng, u, v, s) * s for s in (48.0, 24.0, 12.0))
    vein = np.abs(np.sin(np.pi * (u + 0.55 * turbulence) / rng.uniform(38, 56)))
    return np.clip(2.5 * (1 - vein / rng.uniform(0.3, 0.45)), 0, 1).astype(np.float32)


def scales(rng: np.random.Generator, u: Field, v: Field) -> Field:
    """Rows of overlapping discs, half a disc apart: the upper row covers the lower one."""
    p = rng.uniform(24, 38)
    rim = rng.uniform(0.14, 0.2)
    x, y = u / p, 2 * v / p
    row = np.floor(y)
    result = np.zeros_like(u)
    for r in (row + 1, row):
        d = np.hypot(np.mod(x + 0.5 * np.mod(r, 2), 1) - 0.5, (y - r) / 2)
        result = np.where(d < 0.5, (d > 0.5 - rim).astype(np.float32), result)
    return result


def hexagons(rng: np.random.Generator, u: Field, v: Field) -> Field:
    p = rng.uniform(24, 40)
    s = np.float32(np.sqrt(3))
    x, y = u / p, v / p

    def edge(x: Field, y: Field) -> tuple[Field, Field]:
        a, b = np.mod(x, 1) - 0.5, np.mod(y, s) - s / 2
        return np.hypot(a, b), np.maximum(np.abs(a), np.abs(a) / 2 + np.abs(b) * s / 2)

    d0, e0 = edge(x, y)
    d1, e1 = edge(x + 0.5, y + s / 2)
    return (np.where(d0 < d1, e0, e1) > 0.5 - rng.uniform(0.07, 0.1)).astype(np.float32)


def grid(rng: np.random.Generator, u: Field, v: Field) -> Field:
    u, v = _rotated(rng, u, v, 0.05)
    p = rng.uniform(18, 34)
    line = rng.uniform(4, 6)
    return ((np.mod(u, p) < line) | (np.mod(v, p) < line)).astype(np.float32)


def cobblestones(rng: np.random.Generator, u: Field, v: Field) -> Field:
    first, second = _nearest(rng, u, v, rng.uniform(24, 34))
    return (1 - np.clip((second - first - 0.1) / 0.1, 0, 1) * (1 - 0.25 * first)).astype(np.float32)


def clouds(rng: np.random.Generator, u: Field, v: Field) -> Field:
    size = rng.uniform(22, 34)
    field = _noise(rng, u, v, size) + 0.4 * _noise(rng, u, v, size / 2)
    return np.clip(field * 5 + 0.5, 0, 1).astype(np.float32)


PATTERNS: dict[str, Pattern] = {
    f.__name__: f
    for f in (
        stripes,
        checkers,
        dots,
        bricks,
        waves,
        zigzag,
        wood,
        marble,
        scales,
        hexagons,
        grid,
        cobblestones,
        clouds,
    )
}


def draw(rng: np.random.Generator, pattern: str, colours: tuple[str, str], size: int) -> NDArray[np.uint8]:
    """Draw one crop.

    Args:
        pattern: a key of PATTERNS.
        colours: main colour and second colour, keys of PALETTE.
        size: width and height in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    n = size * SUPERSAMPLING
    axis = (np.arange(n, dtype=np.float32) + 0.5) / (SUPERSAMPLING * SCALE)
    v, u = np.meshgrid(axis + np.float32(rng.uniform(0, 4096)), axis + np.float32(rng.uniform(0, 4096)), indexing="ij")
    cover = PATTERNS[pattern](rng, u, v)
    cover = cover.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean((1, 3))[..., None]
    first, second = (np.array(PALETTE[c], np.float32) + rng.uniform(-9, 9, 3) for c in colours)
    return np.clip(first * (1 - cover) + second * cover + 0.5, 0, 255).astype(np.uint8)
