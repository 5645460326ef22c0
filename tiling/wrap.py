"""Margins of wrapped content, added before processing that is not periodic and cut or blended away after it."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from .axes import Axes, edges_that_meet


class Geometry(NamedTuple):
    """How an image is padded.

    Attributes:
        height: of the image without margins, px.
        width: likewise.
        down: margin above and below, px.
        across: margin left and right, px.
        axes: how repeats are laid out.
    """

    height: int
    width: int
    down: int
    across: int
    axes: Axes = Axes(True, True)

    def at(self, size: tuple[int, int], padded: bool) -> Geometry:
        """Return the geometry of the same image at another scale.

        Args:
            size: (height, width) there.
            padded: whether that is the size with margins.

        Raises:
            ValueError: the image, or the margin that is to be added, would not be a whole number of pixels there.
        """
        tall, wide = (self.height + 2 * self.down, self.width + 2 * self.across) if padded else self[:2]
        scales = Fraction(size[0], tall), Fraction(size[1], wide)
        period = scales[0] * self.height, scales[1] * self.width
        if any(length.denominator > 1 for length in period):
            raise ValueError(
                f"An image of {size[1]} x {size[0]} px holds {float(period[1]):.2f} x {float(period[0]):.2f} px of "
                f"the texture, not whole ones; scale it to {wide} x {tall} px or a whole multiple of that."
            )
        down, across = scales[0] * self.down, scales[1] * self.across
        if not padded and (down.denominator > 1 or across.denominator > 1):
            raise ValueError(
                f"A padding of {max(self.down, self.across)} px is not a whole number of px of a mask or latent of "
                f"{size[1]} x {size[0]} px; set a multiple of {max(down.denominator, across.denominator)} times that."
            )
        return Geometry(int(period[0]), int(period[1]), int(down), int(across), self.axes)


def margins(size: tuple[int, int], axes: Axes, padding: int) -> Geometry:
    """Return the geometry of an image of `size` (height, width) with `padding` px at the sides of axes that wrap."""
    return Geometry(*size, padding if axes.vertical else 0, padding if axes.horizontal else 0, axes)


def pad(x: Tensor, geometry: Geometry) -> Tensor:
    """Pad `x` (..., H, W) with its repeats on all sides; margins may be larger than the image.

    Raises:
        ValueError: a side that repeats are shifted along by half is odd.

    Examples:
        >>> import torch
        >>> from tessera.tiling import TILINGS, margins, pad
        >>> pad(torch.tensor([[1.0, 2.0, 3.0]]), margins((1, 3), TILINGS["horizontal"], 2))
        tensor([[2., 3., 1., 2., 3., 1., 2.]])
    """
    height, width, down, across, axes = geometry
    check_halves((height, width), axes)
    rows = torch.arange(-down, height + down, device=x.device)[:, None]
    columns = torch.arange(-across, width + across, device=x.device)
    dropped = rows + columns // width * (height // 2 if axes.half_drop else 0)
    slid = columns + rows // height * (width // 2 if axes.brick else 0)
    return x[..., dropped % height, slid % width]


def crop(x: Tensor, geometry: Geometry, blend: float = 0.0) -> Tensor:
    """Undo `pad`: (..., H + 2 down, W + 2 across) -> (..., H, W).

    Args:
        x: the processed image with margins.
        geometry: of `x` itself.
        blend: fraction (0..1) of the margins that is blended with the opposite side of the image, so that the result is
            continuous across the border even where both were processed differently. 0 crops.

    Raises:
        ValueError: a side that repeats are shifted along by half is odd.

    Examples:
        >>> import torch
        >>> from tessera.tiling import TILINGS, crop, margins, pad
        >>> image = torch.rand(3, 16, 24)
        >>> geometry = margins((16, 24), TILINGS["half_drop"], 4)
        >>> padded = pad(image, geometry)
        >>> padded.shape, bool(torch.allclose(crop(padded, geometry, blend=1.0), image))
        (torch.Size([3, 24, 32]), True)
    """
    height, width, down, across, axes = geometry
    check_halves((height, width), axes)
    if axes.brick:
        turned = Geometry(width, height, across, down, axes._replace(half_drop=True, brick=False))
        return crop(x.mT, turned, blend).mT.contiguous()
    rows = _blend_rows(x, height, down, blend, 0)
    return _blend_rows(rows.mT, width, across, blend, height // 2 if axes.half_drop else 0).mT.contiguous()


def _blend_rows(x: Tensor, period: int, margin: int, blend: float, shift: int) -> Tensor:
    """Blend rows with the margins that repeat them: equally at the border, the image alone at `blend` of the margin.

    shift: offset of the rows of the margin from those that they repeat, px.
    """
    image = x[..., margin : margin + period, :]
    reach = min(round(blend * margin), period // 2)
    if reach == 0:
        return image
    weight = (0.5 + (torch.arange(reach, device=x.device, dtype=x.dtype) + 0.5) / (2 * reach))[:, None]
    below = x[..., margin + period : margin + period + reach, :].roll(shift, -1)
    above = x[..., margin - reach : margin, :].roll(-shift, -1)
    first = torch.lerp(below, image[..., :reach, :], weight)
    last = torch.lerp(above, image[..., period - reach :, :], weight.flip(0))
    return torch.cat((first, image[..., reach : period - reach, :], last), dim=-2)


def check_halves(size: tuple[int, int], axes: Axes, pixel: int = 1) -> None:
    """Raise ValueError where a side that repeats are shifted along by half is odd: exact halves need whole numbers.

    Args:
        size: (height, width).
        axes: how repeats are shifted.
        pixel: image pixels per pixel of `size`.
    """
    for name, length, halved in (("width", size[1], axes.brick), ("height", size[0], axes.half_drop)):
        if halved and length % 2:
            lower, upper = (length - 1) * pixel, (length + 1) * pixel
            raise ValueError(
                f"An image whose {edges_that_meet(axes)} needs a {name} that is a multiple of {2 * pixel} px, but it "
                f"is {length * pixel} px; set the {name} to {f'{lower} or {upper}' if lower else upper} px."
            )


def extend(x: Tensor, axes: Axes, down: int, across: int) -> Tensor:
    """Extend `x` (..., H, W) with its repeats, below and to the right: (..., H + down, W + across)."""
    if axes.half_drop:
        return extend(x.mT, axes._replace(half_drop=False, brick=True), across, down).mT
    height, width = x.shape[-2:]
    rows = torch.arange(height + down, device=x.device)[:, None]
    columns = torch.arange(width + across, device=x.device) + rows // height * (width // 2 if axes.brick else 0)
    return x[..., rows % height, columns % width]


def fold(x: Tensor, axes: Axes, down: int, across: int) -> Tensor:
    """Undo `extend`: cut the last `down` rows and `across` columns of `x` (..., H, W), faded into the first ones.

    The fade is linear, the cut part counting fully at the border, so the result continues over the border exactly as
    `x` continued from its period into the margin. Margins may be as large as the period, not larger.
    """
    if axes.half_drop:
        return fold(x.mT, axes._replace(half_drop=False, brick=True), across, down).mT.contiguous()
    whole = _fold_rows(x.mT, across, 0).mT
    return _fold_rows(whole, down, whole.shape[-1] // 2 if axes.brick else 0).contiguous()


def _fold_rows(x: Tensor, margin: int, shift: int) -> Tensor:
    """Fade the last rows into the first, rolled right by `shift`, the offset of the repeat below."""
    if margin == 0:
        return x
    period = x.shape[-2] - margin
    fade = torch.arange(margin, device=x.device, dtype=x.dtype)[:, None] / margin
    head = torch.lerp(x[..., period:, :].roll(shift, -1), x[..., :margin, :], fade)
    return torch.cat((head, x[..., margin:period, :]), dim=-2)
