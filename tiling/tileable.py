"""Make an existing image repeat: even out its light, and fade its border into adjacent lines from inside.

What the fade leaves visible (two patterns at once, half way in) can be repaired by inpainting with a seamless model.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from .axes import Axes

SEARCHED = 64
"""Lines across which candidates are compared, enough to find the phase of a pattern."""

FADED = 0.7
MASKED = 0.5
"""Fractions of the border that are faded, and masked fully: the middle of the fade, where two patterns mix."""


def make_tileable(images: Tensor, axes: Axes, border: int, lighting: float) -> tuple[Tensor, Tensor]:
    """Make images repeat along `axes`; further than `border` from the edges, only their light changes.

    Args:
        images: (B, C, H, W).
        axes: along which axes.
        border: width in px of the changed band at each edge.
        lighting: fraction (0..1) of the smooth part, light that drifts over the image, that is removed.

    Returns:
        Images (B, C, H, W), and a mask (H, W) of the band: 1 where they were faded, falling smoothly to 0.

    Raises:
        ValueError: a side that repeats is shorter than three borders.

    Examples:
        >>> import torch
        >>> from tessera.tiling import TILINGS, make_tileable
        >>> ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
        >>> made, mask = make_tileable(ramp, TILINGS["horizontal"], border=8, lighting=1.0)
        >>> bool((made[..., 0] - made[..., -1]).abs().max() < 0.05), mask.shape
        (True, torch.Size([64, 64]))
    """
    height, width = images.shape[-2:]
    for name, length, wraps in (("width", width, axes.horizontal), ("height", height, axes.vertical)):
        if wraps and length < 3 * border:
            found = f"A border of {border} px needs a {name} of {3 * border} px or more, but it is {length} px; "
            if length < 3:
                raise ValueError(f"{found}the narrowest border, 1 px, needs 3 px, so use a larger image.")
            raise ValueError(f"{found}set the border to {length // 3} px or less.")
    even = images - lighting * smooth_part(images, axes)
    made = torch.stack([_repeat_rows(p, border) for p in even]) if axes.vertical else even
    made = torch.stack([_repeat_rows(p.mT, border).mT for p in made]) if axes.horizontal else made
    down = edge_weight(height, MASKED * border, border) if axes.vertical else torch.zeros(height)
    across = edge_weight(width, MASKED * border, border) if axes.horizontal else torch.zeros(width)
    return made, torch.maximum(down[:, None], across)


def smooth_part(images: Tensor, axes: Axes) -> Tensor:
    """Return the smooth part of the periodic-plus-smooth decomposition (L. Moisan, J. Math. Imaging Vis. 39, 2011).

    It has the jumps of `images` (B, C, H, W) over the edges that meet along `axes`, and the least possible detail.
    """
    height, width = images.shape[-2:]
    jumps = torch.zeros_like(images, dtype=torch.float32)
    if axes.vertical:
        jump = (images[..., -1, :] - images[..., 0, :]).float()
        jumps[..., 0, :] += jump
        jumps[..., -1, :] -= jump
    if axes.horizontal:
        jump = (images[..., -1] - images[..., 0]).float()
        jumps[..., 0] += jump
        jumps[..., -1] -= jump
    device = images.device
    laplacian = 2 * (2 * torch.pi * torch.fft.fftfreq(height, device=device)).cos()[:, None]
    laplacian = laplacian + 2 * (2 * torch.pi * torch.fft.rfftfreq(width, device=device)).cos() - 4
    laplacian[0, 0] = 1
    spectrum = torch.fft.rfft2(jumps) / laplacian
    spectrum[..., 0, 0] = 0
    return torch.fft.irfft2(spectrum, s=(height, width)).to(images)


def edge_weight(length: int, begin: float, end: float) -> Tensor:
    """Return weights (length,): 1 up to `begin` px from both ends, falling as a smooth step to 0 at `end` px."""
    distance = torch.minimum(torch.arange(length), torch.arange(length).flip(0))
    inside = ((distance - begin) / (end - begin)).clamp(0, 1)
    return 1 - inside * inside * (3 - 2 * inside)


def _repeat_rows(image: Tensor, border: int) -> Tensor:
    """Fade the top and bottom band of `image` (C, H, W) into rows that are adjacent inside it."""
    height = image.shape[-2]
    shifted = image.roll(-_best_row(image, border), -2)
    weight = edge_weight(height, 0, FADED * border).to(image)[:, None]
    return torch.lerp(image, shifted, weight)


def _best_row(image: Tensor, border: int) -> int:
    """Return the inner row that should come first: the bands match best, and its step to the row above is ordinary.

    image: (C, H, W); rows from `border` to H - border count.
    """
    height, width = image.shape[-2:]
    lines = rearrange(image[..., :: -(-width // SEARCHED)].float(), "c h w -> h (c w)")
    steps = (lines - lines.roll(1, 0)).abs().mean(1)
    candidates = torch.arange(border, height - border + 1)
    usual = candidates[steps[candidates % height] <= 1.001 * steps[1:].quantile(0.95)]
    candidates = usual if len(usual) else candidates
    band = torch.cat((torch.arange(-border, 0), torch.arange(border)))
    costs = [(lines[band] - lines[(band + row) % height]).abs().mean() for row in candidates.tolist()]
    return int(candidates[torch.stack(costs).argmin()])
