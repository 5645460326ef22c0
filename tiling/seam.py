"""How visible the seam of a repeated picture is: the step across its border against the steps inside it.

Along an axis, the step at position j is g_j = mean |I_j - I_(j-1)| over the other axis and the channels, j = 0 being
the step from the last line to the first. All measures are ratios of g_0 to the rest: the texture's contrast drops out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

RUN = 32
"""Length in px of the runs over which signed steps are averaged for CR: faint steps of one sign survive that."""

LEAST_STEP = 0.5 / 255
"""Steps below half a level of 8 bits count as this much: rounding alone makes them."""

USUAL = 1.5
"""Ratios to the median up to here are chance: periodic 1/f noise reaches 1.3 (SR) and 1.5 (CR)."""

LARGEST = 1.1
"""Ratios to the 99th percentile up to here are chance: periodic 1/f noise reaches 1.06."""


@dataclass(frozen=True)
class AxisSeam:
    """The seam of one picture along one axis.

    Args:
        sr: border step / median inner step. 1 is no seam; a lone edge that lies on the border scores high, no fault.
        sr_max: border step / 99th percentile of the inner steps. Up to 1, steps like it occur inside as well.
        rank: fraction (0..1) of the inner steps that are smaller than the border's.
        cr: as sr, of steps averaged with their sign over runs of 32 px: sees faint steps, as brightness drifts.
        cr_max: as sr_max, of these averages.
    """

    sr: float
    sr_max: float
    rank: float
    cr: float
    cr_max: float

    @property
    def visible(self) -> bool:
        """Whether the border step stands out from everything inside, by itself or as a faint step of one sign."""
        return self.sr_max > LARGEST or (self.cr > USUAL and self.cr_max > LARGEST)


@dataclass(frozen=True)
class Seam:
    """The seams of one picture: where its left and right edge meet, and where its top and bottom do."""

    horizontal: AxisSeam
    vertical: AxisSeam

    @property
    def ratio(self) -> float:
        """The seam ratio: sr of the worse axis."""
        return max(self.horizontal.sr, self.vertical.sr)


def measure(images: Tensor) -> list[Seam]:
    """Measure the seams of each picture of a batch.

    Args:
        images: (B, H, W, C), values 0..1, both sides at least 2 px.

    Raises:
        ValueError: a side is shorter than 2 px, so there is nothing inside to compare the border with.
    """
    height, width = images.shape[1:3]
    if min(height, width) < 2:
        raise ValueError(f"The image is {width} x {height} px; a seam check needs at least 2 px along both axes.")
    pictures = images.detach().float().cpu()
    return [Seam(_axis_seam(p.transpose(0, 1)), _axis_seam(p)) for p in pictures]


def _axis_seam(lines: Tensor) -> AxisSeam:
    """The seam between the first and the last of `lines` (N, L, C)."""
    steps = lines - lines.roll(1, 0)
    sharp = steps.abs().mean((1, 2))
    faint = _runs(steps).mean(2).abs().mean((1, 2))
    sr, sr_max = _ratios(sharp)
    cr, cr_max = _ratios(faint)
    return AxisSeam(sr, sr_max, float((sharp[1:] < sharp[0]).float().mean()), cr, cr_max)


def _runs(steps: Tensor) -> Tensor:
    """(N, L, C) -> (N, L // run, run, C), whole runs only."""
    length = min(RUN, steps.shape[1])
    count = steps.shape[1] // length
    return steps[:, : count * length].unflatten(1, (count, length))


def _ratios(steps: Tensor) -> tuple[float, float]:
    """(border / median, border / 99th percentile) of `steps` (N,), the first being the border's."""
    border, median, high = (max(float(v), LEAST_STEP) for v in (steps[0], steps[1:].median(), steps[1:].quantile(0.99)))
    return border / median, border / high


def repeat(images: Tensor, columns: int, rows: int) -> Tensor:
    """Lay `images` (B, H, W, C) side by side: (B, rows * H, columns * W, C)."""
    return images.repeat(1, rows, columns, 1)


def heat_map(images: Tensor) -> Tensor:
    """Show where steps stand out: (B, H, W, 3), the picture offset by half, so that its borders cross in the middle.

    The picture is dark grey. Red to yellow to white lies over it where the step to the left or upper neighbour,
    averaged over 9 px along the edge, goes from the 99th percentile of the steps inside to four times that.
    """
    pictures = images.detach().float().cpu()
    heat = torch.stack([torch.maximum(_heat(p), _heat(p.transpose(0, 1)).T) for p in pictures])[..., None]
    glow = torch.cat([(heat * 3 - i).clamp(0, 1) for i in range(3)], dim=-1)
    grey = pictures[..., :3].mean(-1, keepdim=True) * 0.4
    height, width = images.shape[1:3]
    return torch.maximum(grey.expand_as(glow), glow).roll((height // 2, width // 2), (1, 2))


def report(seams: list[Seam]) -> str:
    """Say in words what `measure` found, one paragraph a picture."""
    paragraphs = [
        "\n".join((_sentence("left and right", seam.horizontal), _sentence("top and bottom", seam.vertical)))
        for seam in seams
    ]
    if len(paragraphs) == 1:
        return paragraphs[0]
    return "\n\n".join(f"Picture {number}\n{text}" for number, text in enumerate(paragraphs, 1))


def _sentence(edges: str, seam: AxisSeam) -> str:
    if seam.visible:
        verdict = "a seam shows" if seam.sr_max > LARGEST else "a faint seam shows"
    elif max(seam.sr, seam.cr) > USUAL:
        verdict = "not certain, as the step is unusual but not alone; an edge of the pattern may lie there, look at it"
    else:
        verdict = "no seam"
    return (
        f"Where {edges} meet: {verdict}. The step is {seam.sr:.2f} x the median step inside (SR) and {seam.sr_max:.2f} "
        f"x the 99th percentile (SRmax), larger than {seam.rank:.0%} of them; averaged with its sign over {RUN} px it "
        f"is {seam.cr:.2f} x the median (CR) and {seam.cr_max:.2f} x the 99th percentile."
    )


def _heat(lines: Tensor) -> Tensor:
    """(N, L, C) -> (N, L), 0..1: how far each step between lines exceeds the usual ones."""
    steps = _smooth((lines - lines.roll(1, 0)).abs().mean(2))
    inside = steps[1:].flatten()
    usual = max(float(inside.kthvalue(max(1, round(0.99 * len(inside))))[0]), LEAST_STEP)
    return ((steps / usual - 1) / 3).clamp(0, 1)


def _smooth(steps: Tensor) -> Tensor:
    """(N, L) -> (N, L): the mean over 9 px along the edge, which wraps."""
    half = min(4, (steps.shape[1] - 1) // 2)
    wrapped = F.pad(steps[:, None], (half, half), mode="circular")
    return F.avg_pool1d(wrapped, 2 * half + 1, stride=1)[:, 0]
