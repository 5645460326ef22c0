"""How visible the seam of a repeated image is: the step across its border against the steps inside it.

Along an axis, the step at position j is g_j = mean |I_j - I_(j-1)| over the other axis and the channels, j = 0 being
the step from the last line to the first. All measures are ratios of g_0 to the rest: the texture's contrast drops out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from .axes import Axes

RUN = 32
"""Length in px of the runs over which signed steps are averaged for CR, so that faint steps of one sign remain."""

LEAST_STEP = 0.5 / 255
"""Steps below half a level of 8 bits count as this much: rounding alone makes them."""

USUAL = 1.5
"""Ratios to the median up to here are chance: periodic 1/f noise reaches 1.3 (SR) and 1.5 (CR)."""

LARGEST = 1.1
"""Ratios to the 99th percentile up to here are chance: periodic 1/f noise reaches 1.06."""


ALIKE = 0.8
"""Autocorrelation from which the report warns of repetition."""

STRAIGHT = Axes(True, True)


@dataclass(frozen=True)
class AxisSeam:
    """The seam of one image along one axis.

    Attributes:
        sr: border step / median inner step. 1 means no seam; a lone edge on the border scores high, too.
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
    """The seams of one image: where its left and right edge meet, and where its top and bottom do.

    Attributes:
        horizontal: where left and right meet.
        vertical: where top and bottom meet.
        alike: highest correlation (-1..1) of the image with itself when it is moved
        down: by this many px down
        right: and this many to the right.
        axes: how repeats are laid out; only edges that should meet count.
    """

    horizontal: AxisSeam
    vertical: AxisSeam
    alike: float
    down: int
    right: int
    axes: Axes = STRAIGHT

    @property
    def ratio(self) -> float:
        """The seam ratio: sr of the worse axis of those that repeat."""
        return max(seam.sr for seam in self._meeting)

    @property
    def visible(self) -> bool:
        """Whether the seam of an axis that repeats is visible."""
        return any(seam.visible for seam in self._meeting)

    @property
    def _meeting(self) -> list[AxisSeam]:
        both = ((self.horizontal, self.axes.horizontal), (self.vertical, self.axes.vertical))
        return [seam for seam, meets in both if meets]


def measure(images: Tensor, axes: Axes = STRAIGHT) -> list[Seam]:
    """Measure the seams of each image of a batch.

    Args:
        images: (B, H, W, C), values 0..1, both sides at least 2 px.
        axes: how repeats are laid out, along one axis at least; both edges are measured, but only those that should
            meet count in `Seam.ratio` and `report`.

    Raises:
        ValueError: a side is shorter than 2 px, so there is nothing inside to compare the border with, or an image
            has values that are not finite.

    Examples:
        >>> import torch
        >>> from tessera.tiling import measure
        >>> waves = torch.sin(2 * torch.pi * torch.arange(64) / 16)[None, None, :, None].expand(1, 64, 64, 3) / 2 + 0.5
        >>> seam, = measure(waves)
        >>> seam.horizontal.visible
        False
        >>> seam, = measure(waves[:, :, :52])
        >>> seam.horizontal.visible, seam.vertical.visible
        (True, False)
    """
    height, width = images.shape[1:3]
    if min(height, width) < 2:
        raise ValueError(f"The image is {width} x {height} px; a seam check needs at least 2 px along both axes.")
    images = images.detach().float().cpu()
    if not images.isfinite().all():
        raise ValueError("An image has values that are not finite, such as NaN; check what made it.")
    return [
        Seam(_axis_seam(p.transpose(0, 1), axes.half_drop), _axis_seam(p, axes.brick), *_repetition(p), axes)
        for p in images
    ]


def _steps(lines: Tensor, shifted: bool) -> Tensor:
    """Return the steps (N, L, C) from each line to the next, cyclically; the first may start from a shifted line."""
    before = lines.roll(1, 0)
    if shifted:
        before[0] = before[0].roll(lines.shape[1] // 2, 0)
    return lines - before


def _axis_seam(lines: Tensor, shifted: bool) -> AxisSeam:
    """Return the seam between the first and the last of `lines` (N, L, C)."""
    return seam_of_steps(_steps(lines, shifted))


def seam_of_steps(steps: Tensor) -> AxisSeam:
    """Return the seam of signed `steps` (N, L, C), of which the first is the border's."""
    sharp = steps.abs().mean((1, 2))
    faint = _runs(steps).mean(2).abs().mean((1, 2))
    sr, sr_max = _ratios(sharp)
    cr, cr_max = _ratios(faint)
    return AxisSeam(sr, sr_max, float((sharp[1:] < sharp[0]).float().mean()), cr, cr_max)


def _runs(steps: Tensor) -> Tensor:
    """Split the lines of `steps` (N, L, C) into whole runs: (N, L // run, run, C)."""
    length = min(RUN, steps.shape[1])
    count = steps.shape[1] // length
    return rearrange(steps[:, : count * length], "n (count run) c -> n count run c", run=length)


def _ratios(steps: Tensor) -> tuple[float, float]:
    """Return (border / median, border / 99th percentile) of `steps` (N,), of which the first is the border's."""
    border, median, high = (max(float(v), LEAST_STEP) for v in (steps[0], steps[1:].median(), steps[1:].quantile(0.99)))
    return border / median, border / high


def _repetition(image: Tensor) -> tuple[float, int, int]:
    """Return the highest peak of the circular autocorrelation (-1..1) of `image` (H, W, C), and where it is.

    Lags shorter than an eighth of the image do not count; 0 for an image without a peak or without contrast.
    """
    height, width = image.shape[:2]
    spectrum = torch.fft.rfft2(rearrange(image - image.mean((0, 1)), "h w c -> c h w"))
    alike = torch.fft.irfft2((spectrum * spectrum.conj()).real.sum(0), s=(height, width))
    if float(alike[0, 0]) <= LEAST_STEP**2 * image.numel():
        return 0.0, 0, 0
    alike = alike / alike[0, 0]
    around = F.max_pool2d(F.pad(alike[None, None], (1, 1, 1, 1), mode="circular"), 3, 1)[0, 0]
    down, across = (torch.minimum(torch.arange(n), n - torch.arange(n)) / n for n in (height, width))
    far = torch.hypot(down[:, None], across.expand(height, -1)) >= 1 / 8
    peaks = torch.where(far & (alike == around), alike, torch.zeros(()))
    at = int(peaks.argmax())
    return float(peaks.flatten()[at]), at // width, at % width


def repeat(images: Tensor, columns: int, rows: int, axes: Axes = STRAIGHT) -> Tensor:
    """Tile `images` (B, H, W, C): (B, rows * H, columns * W, C), shifted as in `axes`.

    Along an axis that does not repeat, there is one.

    Examples:
        >>> import torch
        >>> from tessera.tiling import REPEATS, repeat
        >>> repeat(torch.tensor([[[[1.0], [2.0]]]]), 2, 2, REPEATS["brick"])[0, ..., 0]
        tensor([[1., 2., 1., 2.],
                [2., 1., 2., 1.]])
    """
    columns, rows = columns if axes.horizontal else 1, rows if axes.vertical else 1
    height, width = images.shape[1:3]
    pieces = [
        [
            images.roll((c % 2 * axes.half_drop * (height // 2), r % 2 * axes.brick * (width // 2)), (1, 2))
            for c in range(columns)
        ]
        for r in range(rows)
    ]
    return torch.cat([torch.cat(row, dim=2) for row in pieces], dim=1)


def heat_map(images: Tensor, axes: Axes = STRAIGHT) -> Tensor:
    """Show where steps stand out: (B, H, W, 3), the image offset by half, so that its borders cross in the middle.

    The image is dark grey. Red to yellow to white shows where the step to the left or upper neighbour,
    averaged over 9 px along the edge, goes from the 99th percentile of the steps inside to four times that.
    Along an axis that does not repeat, the image stays in place and steps do not count.
    """
    images = images.detach().float().cpu()
    heat = torch.stack([_heat_of_axes(p, axes) for p in images])[..., None]
    glow = torch.cat([(heat * 3 - i).clamp(0, 1) for i in range(3)], dim=-1)
    grey = images[..., :3].mean(-1, keepdim=True) * 0.4
    moved = images.shape[1] // 2 * axes.vertical, images.shape[2] // 2 * axes.horizontal
    return torch.maximum(grey.expand_as(glow), glow).roll(moved, (1, 2))


def report(seams: list[Seam]) -> str:
    """Say in words what `measure` found, one paragraph an image."""
    paragraphs = [
        "\n".join(
            (
                _sentence("left and right", seam.horizontal, seam.axes.horizontal),
                _sentence("top and bottom", seam.vertical, seam.axes.vertical),
                _inside(seam),
            )
        ).strip()
        for seam in seams
    ]
    if len(paragraphs) == 1:
        return paragraphs[0]
    return "\n\n".join(f"Image {number}\n{text}" for number, text in enumerate(paragraphs, 1))


def _inside(seam: Seam) -> str:
    """Return a warning about repetition inside an image, or nothing."""
    if seam.alike < ALIKE:
        return ""
    return (
        f"Repetition: moved by {seam.right} px to the right and {seam.down} px down, the image is {seam.alike:.0%} "
        "like itself, so that a large tiling shows less variety than its size allows."
    )


def _sentence(edges: str, seam: AxisSeam, meet: bool) -> str:
    if not meet:
        return f"{edges.capitalize()} are not meant to meet, so the step there does not count."
    if seam.visible:
        verdict = "a seam shows" if seam.sr_max > LARGEST else "a faint seam shows"
    elif max(seam.sr, seam.cr) > USUAL:
        verdict = "not certain, as the step is unusual but not alone; an edge of the pattern may be there, look at it"
    else:
        verdict = "no seam"
    return (
        f"Where {edges} meet: {verdict}. The step is {seam.sr:.2f} x the median step inside (SR) and {seam.sr_max:.2f} "
        f"x the 99th percentile (SRmax), larger than {seam.rank:.0%} of them; averaged with its sign over {RUN} px it "
        f"is {seam.cr:.2f} x the median (CR) and {seam.cr_max:.2f} x the 99th percentile."
    )


def _heat_of_axes(image: Tensor, axes: Axes) -> Tensor:
    """Return the larger heat (H, W), 0..1, of the axes that repeat."""
    heats = [_heat(image, axes.brick, axes.horizontal)] if axes.vertical else []
    heats += [_heat(image.transpose(0, 1), axes.half_drop, axes.vertical).T] if axes.horizontal else []
    return torch.stack(heats).amax(0)


def _heat(lines: Tensor, shifted: bool, wraps: bool) -> Tensor:
    """Return how far each step between lines (N, L, C) exceeds the usual ones: (N, L), 0..1."""
    steps = _smooth(_steps(lines, shifted).abs().mean(2), wraps)
    inside = steps[1:].flatten()
    usual = max(float(inside.kthvalue(max(1, round(0.99 * len(inside))))[0]), LEAST_STEP)
    return ((steps / usual - 1) / 3).clamp(0, 1)


def _smooth(steps: Tensor, wraps: bool) -> Tensor:
    """Average steps (N, L) over 9 px along the edge, which wraps or is continued by its ends."""
    half = min(4, (steps.shape[1] - 1) // 2)
    continued = F.pad(steps[:, None], (half, half), mode="circular" if wraps else "replicate")
    return F.avg_pool1d(continued, 2 * half + 1, stride=1)[:, 0]
