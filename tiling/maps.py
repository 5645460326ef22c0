"""Height, normal and ambient occlusion maps of a surface, which repeat exactly as the texture does.

Heights are 0..1; the `relief` is the distance between the two in px of the image. Slopes are those of Scharr's filter
(B. Jaehne, H. Scharr, S. Koerkel 1999: derivative [-1 0 1] / 2, across it [3 10 3] / 16), which reads the far edge
beyond the border; along an axis that does not repeat, the surface is continued by its edge value. Normals point from
the surface; x goes right, and y up (OpenGL) or down (DirectX).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .axes import Axes
from .seam import STRAIGHT, repeat

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue (ITU-R BT.709)."""

STEEPEST = 0.01
"""Least z of a normal; steeper ones, and those that point down, are clamped to it (89.4 degrees)."""

LEAST_RELIEF = 1e-3
"""Reliefs below this many px are rounding errors of a flat surface."""

DIRECTIONS = 16


def grey(image: Tensor) -> Tensor:
    """Return the luminance (B, H, W) of images (B, H, W, C); transparency is ignored."""
    if image.shape[-1] < 3:
        return image[..., 0]
    return image[..., :3] @ torch.tensor(LUMINANCE, dtype=image.dtype, device=image.device)


def rectangle(image: Tensor, axes: Axes) -> Tensor:
    """Return the smallest straight period of an `image` (B, H, W, C) that repeats shifted: two of it, or itself."""
    return repeat(image, 2 if axes.half_drop else 1, 2 if axes.brick else 1, axes)


def slopes(height: Tensor, axes: Axes = STRAIGHT) -> tuple[Tensor, Tensor]:
    """Return the slopes of `height` (B, H, W) per px, to the right and down.

    At the ends of an axis that does not repeat, the slope along it is one-sided: h[1] - h[0].
    """
    surface = _continued(height, axes, 1)

    def slope(along: int, across: int, wraps: bool) -> Tensor:
        rise = (surface.roll(-1, along) - surface.roll(1, along)) / 2
        smooth = (3 * rise.roll(-1, across) + 10 * rise + 3 * rise.roll(1, across)) / 16
        return _scale_ends(_middle(smooth, axes, 1), along, 1 if wraps else 2)

    return slope(-1, -2, axes.horizontal), slope(-2, -1, axes.vertical)


def _continued(surface: Tensor, axes: Axes, margin: int) -> Tensor:
    """Pad (B, H, W) by `margin` px of its edge values at both ends of an axis that does not repeat."""
    across, down = (0 if wraps else margin for wraps in axes[:2])
    return F.pad(surface[:, None], (across, across, down, down), mode="replicate")[:, 0]


def _middle(surface: Tensor, axes: Axes, margin: int) -> Tensor:
    """Undo `_continued`."""
    across, down = (0 if wraps else margin for wraps in axes[:2])
    height, width = surface.shape[-2:]
    return surface[:, down : height - down, across : width - across]


def _scale_ends(values: Tensor, dim: int, factor: float) -> Tensor:
    """Multiply the first and the last line of `values` along `dim` by `factor`."""
    if factor == 1:
        return values
    scaled = values.clone()
    for line in {0, values.shape[dim] - 1}:
        scaled.select(dim, line).mul_(factor)
    return scaled


def normals(height: Tensor, relief: float, y_up: bool = True, axes: Axes = STRAIGHT) -> Tensor:
    """Return the normal map of a height map.

    Args:
        height: (B, H, W), 0..1.
        relief: px between heights 0 and 1; negative ones turn hills into hollows.
        y_up: whether green is up (OpenGL) or down (DirectX).
        axes: along which axes the heights repeat.

    Returns:
        (B, H, W, 3), 0..1, where (0.5, 0.5, 1) is flat.

    Examples:
        >>> import torch
        >>> from tessera.tiling import normals
        >>> normals(torch.full((1, 4, 4), 0.3), relief=10)[0, 0, 0]
        tensor([0.5000, 0.5000, 1.0000])
    """
    right, down = slopes(height * relief, axes)
    vectors = torch.stack((-right, down if y_up else -down, torch.ones_like(right)), -1)
    return vectors / vectors.norm(dim=-1, keepdim=True) / 2 + 0.5


def heights(normal: Tensor, y_up: bool = True, axes: Axes = STRAIGHT) -> tuple[Tensor, Tensor]:
    """Return the height map whose normals are nearest to a normal map: Frankot and Chellappa's projection (1988).

    Of all surfaces that repeat, the one whose slopes differ least from those asked for, in the sum of squares. With
    the spectra of Scharr's filter in place of i times the frequency this undoes `normals` exactly, but for what that
    filter does not see: patterns that alternate from px to px. Along an axis that does not repeat the surface is
    mirrored at its ends, so the slope there, one-sided in `slopes`, counts half (a quarter in squares).

    Args:
        normal: (B, H, W, 3 or more), 0..1; need not be of unit length.
        y_up: whether green is up (OpenGL) or down (DirectX).
        axes: along which axes the surface repeats.

    Returns:
        (B, H, W) heights, 0..1, or 0.5 where the surface is flat; (B,) the relief in px.

    Examples:
        >>> import torch
        >>> from tessera.tiling import heights, normals
        >>> waves = (torch.sin(2 * torch.pi * torch.arange(32) / 16) / 2 + 0.5)[None, None].repeat(1, 32, 1)
        >>> height, relief = heights(normals(waves, relief=6))
        >>> bool(torch.allclose(height, waves, atol=1e-4)), round(relief.item(), 3)
        (True, 6.0)
    """
    vectors = normal[..., :3].cpu().double() * 2 - 1
    steepness = vectors[..., 2].clamp(min=STEEPEST)
    right, down = -vectors[..., 0] / steepness, vectors[..., 1] / steepness * (1 if y_up else -1)
    surface = _integral_of_axes(right, down, axes)
    lowest, highest = surface.amin((1, 2), keepdim=True), surface.amax((1, 2), keepdim=True)
    relief = highest - lowest
    flat = relief < LEAST_RELIEF
    height = torch.where(flat, 0.5, (surface - lowest) / relief.clamp(min=LEAST_RELIEF))
    return height.to(normal.dtype), torch.where(flat, 0.0, relief)[:, 0, 0]


def _integral_of_axes(right: Tensor, down: Tensor, axes: Axes) -> Tensor:
    """Return the surface (B, H, W) of mean 0 whose `slopes` along `axes` are nearest to these."""
    if axes.horizontal and axes.vertical:
        return _integral(right, down)
    if not axes.horizontal:
        return _integral_of_axes(down.mT, right.mT, Axes(axes.vertical, axes.horizontal)).mT
    halved = _scale_ends(down, -2, 0.5)
    return _integral(torch.cat((right, right.flip(-2)), -2), torch.cat((halved, -halved.flip(-2)), -2))[
        :, : right.shape[-2]
    ]


def _integral(right: Tensor, down: Tensor) -> Tensor:
    """Return the surface (B, H, W) of mean 0 whose `slopes` are nearest to these."""
    impulse = torch.zeros_like(right[:1])
    impulse[:, 0, 0] = 1
    across, along = (torch.fft.rfft2(slope) for slope in slopes(impulse))
    power = across.abs() ** 2 + along.abs() ** 2
    seen = power > 1e-12
    wanted = across.conj() * torch.fft.rfft2(right) + along.conj() * torch.fft.rfft2(down)
    return torch.fft.irfft2(torch.where(seen, wanted / power.where(seen, 1), 0), s=right.shape[-2:])


def occlusion(height: Tensor, relief: float, radius: int, axes: Axes = STRAIGHT) -> Tensor:
    """Return the ambient occlusion of a height map: the share of a uniform sky that lights each px.

    Light from elevation a counts sin(a), as on level ground. In each of 16 directions the horizon stands at the
    steepest rise t to any px within the radius; above it 1 / (1 + t^2) of the light of that direction arrives (the
    square of the horizon's cosine). The mean over directions is the horizon-based ambient occlusion of L. Bavoil,
    M. Sainz and R. Dimitrov (2008), without attenuation.

    Args:
        height: (B, H, W), 0..1.
        relief: px between heights 0 and 1.
        radius: how far to look, px.
        axes: along which axes the heights repeat.

    Returns:
        (B, H, W), 0 (dark) to 1 (open, such as flat ground).

    Examples:
        >>> import torch
        >>> from tessera.tiling import occlusion
        >>> pit = torch.ones(1, 9, 9)
        >>> pit[0, 4, 4] = 0
        >>> light = occlusion(pit, relief=3, radius=2)[0]
        >>> bool(light[4, 4] < 0.5), light[0, 0].item()
        (True, 1.0)
    """
    surface = _continued(height * relief, axes, radius)
    light = torch.zeros_like(surface)
    for direction in range(DIRECTIONS):
        rise = torch.zeros_like(surface)
        for x, y in _ray(2 * math.pi * direction / DIRECTIONS, radius):
            rise = torch.maximum(rise, (surface.roll((-y, -x), (-2, -1)) - surface) / math.hypot(x, y))
        light += 1 / (1 + rise**2)
    return _middle(light / DIRECTIONS, axes, radius)


def _ray(angle: float, radius: int) -> list[tuple[int, int]]:
    """Return px (x, y) along a ray from the origin."""
    steps = ((round(math.cos(angle) * r), round(math.sin(angle) * r)) for r in range(1, radius + 1))
    return list(dict.fromkeys(steps))
