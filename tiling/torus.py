"""Torus RoPE: rotary position embeddings for which opposite edges of an image are neighbours.

A band of frequency w turns the token at position p by the angle w p. On an axis of period P, w is rounded to the
nearest harmonic 2 pi k / P, so that the angles at p and p + P are the same (stable-diffusion.cpp, pull request 914; for
the high bands also SHERPA, arXiv 2606.12213). As |w - w'| <= pi / P, hardly anything changes between neighbours; bands
of less than half a turn per period become constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from .axes import Axes
from .circular import NotPeriodicError
from .swap import swapped

Size = tuple[int, int]
Forward = Callable[[Tensor], Any]


class Grid(NamedTuple):
    """An image in a sequence of tokens, row by row.

    Attributes:
        start: its first token.
        height: in tokens.
        width: in tokens.
        step_y: distance of the positions of neighbours, down.
        step_x: distance of the positions of neighbours, to the right.
    """

    start: int
    height: int
    width: int
    step_y: float
    step_x: float

    @property
    def span(self) -> slice:
        """Its tokens."""
        return slice(self.start, self.start + self.height * self.width)


Write = Callable[[Any, slice, Grid, slice, Tensor], None]


class Placed(NamedTuple):
    """Angles of one axis of an image.

    Attributes:
        samples: of the batch.
        grid: the image.
        bands: frequencies of the axis.
        angles: (h or 1, w or 1, bands).
    """

    samples: slice
    grid: Grid
    bands: slice
    angles: Tensor


KnownGrids = dict[Any, "list[Placed]"]
"""Images and angles by call, embedder, shape of the positions and sizes. They stay the same from step to step of a run;
to find them again, a GPU would wait for positions to be read."""


@contextmanager
def torus(
    network: nn.Module, axes: Axes, sizes: Sequence[Size], demand: bool = True, known: KnownGrids | None = None
) -> Iterator[None]:
    """Make the rotary embeddings of `network` periodic along `axes`; on exit, restore it.

    Only angles of image tokens change, each image with its own period; texts keep theirs.

    Args:
        network: has embedders of the kinds in `EMBEDDERS`.
        axes: along which axes images repeat.
        sizes: (height, width) in tokens of the image that is drawn, then of each reference image.
        demand: whether a network that never has an image of the first size is an error.
        known: of a run, filled in its first call.

    Raises:
        NotPeriodicError: there is no known embedder; or when the block ends, embedders were called, but never with an
            image of the first size. (Caches of a host may skip the network, so that none is called.)
    """
    embedders = list(rotary_embedders(network))
    if not embedders:
        raise NotPeriodicError(f"{type(network).__name__} has no known rotary position embedding.")
    asked: list[set[Size]] = []
    methods = [
        (module, partial(_embed, module, write, axes, tuple(sizes), asked, known, module.forward))
        for module, write in embedders
    ]
    with swapped("forward", methods):
        yield
    if demand and asked and sizes[0] not in set.union(*asked):
        height, width = sizes[0]
        raise NotPeriodicError(
            f"{type(network).__name__} should have drawn an image of {width} x {height} tokens, but its position "
            "embedding met none; use the method rolling."
        )


def rotary_embedders(network: nn.Module) -> Iterator[tuple[nn.Module, Write]]:
    """Yield each position embedder in `network`, with the function that writes angles into what it returns."""
    for module in network.modules():
        for kind in type(module).__mro__:
            if kind.__name__ in EMBEDDERS:
                yield module, EMBEDDERS[kind.__name__]


def find_grids(ids: Tensor, sizes: Sequence[Size]) -> list[Grid]:
    """Find the images of these sizes in the positions of a sequence.

    Args:
        ids: (N, A) positions, float32 on the CPU, of which `spatial_axes` are row and column; with a single axis,
            such as for text and sound, there are no images.
        sizes: (height, width) in tokens; where several have the same width, one that ends with the rows is taken, else
            the highest that fits.
    """
    if ids.shape[1] < 2:
        return []
    y, x = spatial_axes(ids.shape[1])
    rows = _runs(ids, x)
    tops = ids[[start for start, _, _ in rows]]
    columns = _runs(tops, y)
    below = [(length - i, step) for _, length, step in columns for i in range(length)]
    grids, at = [], 0
    while at < len(rows):
        start, length, step_x = rows[at]
        count, step_y = below[at]
        high = sum(1 for _ in takewhile(lambda row, wide=length: row[1] == wide, rows[at : at + count]))
        heights = [height for height, width in sizes if width == length and height <= high]
        height = high if high in heights else max(heights, default=0)
        if height:
            grids.append(Grid(start, height, length, step_y, step_x))
        at += height or 1
    return grids


def _runs(points: Tensor, axis: int) -> list[tuple[int, int, float]]:
    """Return (start, length, step) of each longest run of `points` (N, A) in which only `axis` increases, evenly."""
    moves = points[1:] - points[:-1]
    steps = moves[:, axis]
    joined = (steps > 0) & (moves.abs().sum(1) == steps)
    uneven = (steps[1:] - steps[:-1]).abs() > 1e-3 * steps[1:]
    joined[1:] &= ~(joined[:-1] & uneven)
    starts = [0, *((~joined).nonzero()[:, 0] + 1).tolist(), len(points)]
    firsts = [*steps[starts[:-2]].tolist(), 1.0] if starts[-2] == len(steps) else steps[starts[:-1]].tolist()
    return [
        (start, end - start, step if end - start > 1 else 1.0)
        for start, end, step in zip(starts[:-1], starts[1:], firsts, strict=True)
    ]


def spatial_axes(count: int) -> Size:
    """Return which of `count` position axes are row and column; a number of the frame or image comes first."""
    return (0, 1) if count == 2 else (1, 2)


def torus_angles(along: Tensor, period: float, dim: int, theta: float, across: Tensor | None = None) -> Tensor:
    """Return angles (*L, dim / 2) of the bands of one axis (RoFormer, arXiv 2104.09864), rounded to harmonics.

    Args:
        along: (*L) positions along the axis.
        period: of the axis, in positions.
        dim: of the axis; even.
        theta: base of the frequencies theta^(-2i / dim).
        across: (*L) position along the other axis in its periods, where crossing that axis's border shifts by half a
            period along this one: odd harmonics then compensate the half turn gradually.

    Examples:
        >>> import torch
        >>> from tessera.tiling import torus_angles
        >>> here, next_period = torus_angles(torch.tensor([3.0, 13.0]), period=10, dim=8, theta=10000.0)
        >>> turns = (next_period - here) / (2 * torch.pi)
        >>> bool(torch.allclose(turns, turns.round()))
        True
    """
    frequencies = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    turns = (frequencies * period / (2 * math.pi)).round()
    angles = along.double()[..., None] * turns * (2 * math.pi / period)
    return angles if across is None else angles + across.double()[..., None] * (turns % 2) * math.pi


def _embed(
    module: Any,
    write: Write,
    axes: Axes,
    sizes: tuple[Size, ...],
    asked: list[set[Size]],
    known: KnownGrids | None,
    forward: Forward,
    ids: Tensor,
) -> Any:
    """Call the embedder's own `forward` for `ids`, (B, N, A) or (N, A), and put images on the torus.

    The sizes of the images that were found are appended to `asked`.
    """
    embedding = forward(ids)
    # A network asks for its embeddings in the same order in every call.
    key = (len(asked), id(module), ids.shape, ids.device, sizes, axes)
    placed = None if known is None else known.get(key)
    if placed is None:
        placed = [each._replace(angles=_moved(each.angles, ids)) for each in _placed(module, axes, sizes, ids)]
    if known is not None:
        known[key] = placed
    asked.append({(each.grid.height, each.grid.width) for each in placed})
    for samples, grid, bands, angles in placed:
        write(embedding, samples, grid, bands, angles)
    return embedding


def _moved(angles: Tensor, ids: Tensor) -> Tensor:
    """Bring angles, 0..2 pi, to the device of positions; not every device has float64."""
    return (angles % (2 * math.pi)).to(ids.device, torch.float32 if ids.device.type == "mps" else None)


def _placed(module: Any, axes: Axes, sizes: tuple[Size, ...], ids: Tensor) -> Iterator[Placed]:
    """Find the images in positions (B, N, A) or (N, A), with the angles of each axis along which they repeat."""
    samples = ids.detach().cpu().float().reshape(-1, *ids.shape[-2:])
    alike = bool((samples == samples[:1]).all())
    for sample, points in enumerate(samples[:1] if alike else samples):
        for grid in find_grids(points, sizes):
            for axis, angles in _grid_angles(module, axes, grid, points):
                first = sum(module.axes_dim[:axis]) // 2
                bands = slice(first, first + angles.shape[-1])
                yield Placed(slice(None) if alike else slice(sample, sample + 1), grid, bands, angles)


def _grid_angles(module: Any, axes: Axes, grid: Grid, points: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each axis of `points` (N, A) along which the image repeats, with its angles (h or 1, w or 1, bands)."""
    place = rearrange(points[grid.span], "(h w) a -> h w a", h=grid.height)
    y, x = spatial_axes(points.shape[1])
    rows, columns = place[:, :1, y], place[:1, :, x]
    high, wide = grid.height * grid.step_y, grid.width * grid.step_x
    if axes.vertical:
        drop = columns / wide if axes.half_drop else None
        yield y, torus_angles(rows, high, module.axes_dim[y], module.theta, drop)
    if axes.horizontal:
        shift = rows / high if axes.brick else None
        yield x, torus_angles(columns, wide, module.axes_dim[x], module.theta, shift)


def _write_matrices(embedding: Tensor, samples: slice, grid: Grid, bands: slice, angles: Tensor) -> None:
    """Write ComfyUI's `EmbedND`: rotation matrices (B, 1, N, D / 2, 2, 2), HiDream's (B, N, 1, D / 2, 2, 2)."""
    tokens = embedding.squeeze(1) if embedding.shape[1] == 1 else embedding.squeeze(2)
    cos, sin = angles.cos(), angles.sin()
    matrices = rearrange([cos, -sin, sin, cos], "(row column) h w bands -> h w bands row column", row=2)
    place = rearrange(tokens[samples, grid.span, bands], "b (h w) ... -> b h w ...", h=grid.height)
    place.copy_(matrices.to(embedding).expand_as(place))


def _write_pairs(embedding: tuple[Tensor, Tensor], _: slice, grid: Grid, bands: slice, angles: Tensor) -> None:
    """Write diffusers' `FluxPosEmbed`: cosines and sines (N, D), each twice."""
    doubled = rearrange([angles, angles], "twice h w bands -> h w (bands twice)")
    for part, values in zip(embedding, (doubled.cos(), doubled.sin()), strict=True):
        place = rearrange(part[grid.span, 2 * bands.start : 2 * bands.stop], "(h w) d -> h w d", h=grid.height)
        place.copy_(values.to(part).expand_as(place))


def _write_complex(embedding: Tensor, _: slice, grid: Grid, bands: slice, angles: Tensor) -> None:
    """Write the embedded host's `ComplexPosEmbed`: complex rotations (N, D / 2)."""
    place = rearrange(embedding[grid.span, bands], "(h w) d -> h w d", h=grid.height)
    place.copy_(torch.polar(torch.ones_like(angles), angles).to(embedding).expand_as(place))


EMBEDDERS: dict[str, Write] = {
    "ComplexPosEmbed": _write_complex,
    "EmbedND": _write_matrices,
    "FluxPosEmbed": _write_pairs,
    "Flux2PosEmbed": _write_pairs,
}
"""Classes of position embedders, and how angles (h or 1, w or 1, bands) are written into their output."""
