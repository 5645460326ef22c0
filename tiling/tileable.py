"""An existing picture made to repeat: its light evened out, its border faded into lines that lie side by side inside.

What the fade leaves visible (two patterns at once, half way in) is for one inpainting pass with a seamless model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .axes import Axes

SEARCHED = 64
"""Lines across which candidates are compared: enough to tell a pattern's phase."""

FADED = 0.7
MASKED = 0.5
"""Parts of the border: what fades, and what is masked fully: the middle of the fade, where two patterns mix."""


def make_tileable(pictures: Tensor, axes: Axes, border: int, lighting: float) -> tuple[Tensor, Tensor]:
    """Let pictures repeat along `axes`; further than `border` from the edges only their light changes.

    Args:
        pictures: (B, C, H, W).
        axes: along which axes.
        border: width in px of the changed band at each edge.
        lighting: fraction (0..1) of the smooth part, light that drifts over the picture, that is taken off.

    Returns:
        Pictures (B, C, H, W), and a mask (H, W) of the band: 1 where they were faded, falling smoothly to 0.

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
    height, width = pictures.shape[-2:]
    for name, length, wraps in (("width", width, axes.horizontal), ("height", height, axes.vertical)):
        if wraps and length < 3 * border:
            found = f"A border of {border} px needs a {name} of {3 * border} px or more, but it is {length} px; "
            if length < 3:
                raise ValueError(f"{found}the narrowest border, 1 px, needs 3 px, so use a larger image.")
            raise ValueError(f"{found}set the border to {length // 3} px or less.")
    even = pictures - lighting * smooth_part(pictures, axes)
    made = torch.stack([_repeat_rows(p, border) for p in even]) if axes.vertical else even
    made = torch.stack([_repeat_rows(p.mT, border).mT for p in made]) if axes.horizontal else made
    down = edge_weight(height, MASKED * border, border) if axes.vertical else torch.zeros(height)
    across = edge_weight(width, MASKED * border, border) if axes.horizontal else torch.zeros(width)
    return made, torch.maximum(down[:, None], across)


def smooth_part(pictures: Tensor, axes: Axes) -> Tensor:
    """The smooth part of the periodic-plus-smooth decomposition (L. Moisan, J. Math. Imaging Vis. 39, 2011).

    It has the jumps of `pictures` (B, C, H, W) over the edges that meet along `axes`, and the least possible detail.
    """
    height, width = pictures.shape[-2:]
    jumps = torch.zeros_like(pictures, dtype=torch.float32)
    if axes.vertical:
        jump = (pictures[..., -1, :] - pictures[..., 0, :]).float()
        jumps[..., 0, :] += jump
        jumps[..., -1, :] -= jump
    if axes.horizontal:
        jump = (pictures[..., -1] - pictures[..., 0]).float()
        jumps[..., 0] += jump
        jumps[..., -1] -= jump
    device = pictures.device
    laplacian = 2 * (2 * torch.pi * torch.fft.fftfreq(height, device=device)).cos()[:, None]
    laplacian = laplacian + 2 * (2 * torch.pi * torch.fft.rfftfreq(width, device=device)).cos() - 4
    laplacian[0, 0] = 1
    spectrum = torch.fft.rfft2(jumps) / laplacian
    spectrum[..., 0, 0] = 0
    return torch.fft.irfft2(spectrum, s=(height, width)).to(pictures)


def edge_weight(length: int, begin: float, end: float) -> Tensor:
    """(length,): 1 up to `begin` px from both ends, falling as a smooth step to 0 at `end` px and more from them."""
    distance = torch.minimum(torch.arange(length), torch.arange(length).flip(0))
    inside = ((distance - begin) / (end - begin)).clamp(0, 1)
    return 1 - inside * inside * (3 - 2 * inside)


def _repeat_rows(picture: Tensor, border: int) -> Tensor:
    """(C, H, W) with its top and bottom band faded into rows from inside that follow each other there."""
    height = picture.shape[-2]
    shifted = picture.roll(-_best_row(picture, border), -2)
    weight = edge_weight(height, 0, FADED * border).to(picture)[:, None]
    return torch.lerp(picture, shifted, weight)


def _best_row(picture: Tensor, border: int) -> int:
    """The inner row that should come first: both bands look most as they do, and its step to the row above is ordinary.

    picture: (C, H, W); rows from `border` to H - border count.
    """
    height, width = picture.shape[-2:]
    lines = picture[..., :: -(-width // SEARCHED)].float().movedim(-2, 0).flatten(1)
    steps = (lines - lines.roll(1, 0)).abs().mean(1)
    candidates = torch.arange(border, height - border + 1)
    usual = candidates[steps[candidates % height] <= 1.001 * steps[1:].quantile(0.95)]
    candidates = usual if len(usual) else candidates
    band = torch.cat((torch.arange(-border, 0), torch.arange(border)))
    costs = [(lines[band] - lines[(band + row) % height]).abs().mean() for row in candidates.tolist()]
    return int(candidates[torch.stack(costs).argmin()])
