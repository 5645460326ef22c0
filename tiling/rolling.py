"""Rolling, for denoisers that cannot be made periodic: the latents are rolled by another offset at every step.

The seam of each call is where the next one has none (noise rolling of ControlMat, arXiv 2309.01700). The sampler's own
latents never move, so its history, masks and previews stay valid: `unroll(model(roll(x, s)), s)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..patching.calls import DenoiserCall
from ..patching.networks import Network
from .axes import Axes
from .circular import NotPeriodicError
from .hooks import SEED, SeamlessHooks
from .roll import Shift, roll

R2 = (0.7548776662466927, 0.5698402909980532)
"""Fractions of a side between successive shifts: a low-discrepancy sequence (M. Roberts' R2)."""

TWO_CUTS = 0.75
"""From this fraction of the steps on, two passes with seams half a period apart are blended, since too few steps remain
to repair a seam."""


def check_straight(axes: Axes, why: str) -> None:
    """Raise NotPeriodicError, which begins with `why`, when repeats are shifted: rolled images repeat straight."""
    if axes.half_drop or axes.brick:
        raise NotPeriodicError(f"{why}, which repeats straight; use the tiling both.")


class Rolling(SeamlessHooks):
    """Roll the latents before each call of the denoiser, and back after it."""

    def unit(self, network: Network) -> int:
        """Return the side of a token, or the UNet's downsampling; 1 where neither is known."""
        check_straight(self.axes, f"A {network.name} can only be rolled")
        return network.token_size or 1 if network.unet is None else network.downsampling

    def summary(self, network: Network) -> str:
        """Say that the seam is spread, not removed, and what that costs."""
        return (
            "the image is rolled at every step (rolling), which spreads seams thin and is not exact: take 12 steps or "
            f"more, of which the last {1 - TWO_CUTS:.0%} take twice the time"
        )

    def step(self, call: DenoiserCall, axes: Axes) -> Tensor:
        """Call the denoiser on rolled latents; towards the end twice, blended."""
        unit, sigmas = self.unit(call.network), schedule_of(call)
        index = step_index(sigmas, call.level)
        shift = shift_at(call.options.get(SEED) or 0, index, call.size, axes, unit)
        run = partial(run_rolled, call, unit, axes=axes)
        if index < TWO_CUTS * (len(sigmas) - 1):
            return run(shift)
        return blend_cuts(run, shift, call.size, axes, unit)


def schedule_of(call: DenoiserCall) -> Sequence[float]:
    """Return the noise levels of a call's run (N + 1,), on the host; none where they are not told."""
    if call.levels.schedule or call.sigmas is None:
        return call.levels.schedule
    return call.sigmas.tolist()


def step_index(sigmas: Sequence[float], sigma: float) -> int:
    """Return the step, from 0, of a run over `sigmas` (N + 1,) that a call at `sigma` belongs to."""
    return sum(level > sigma * (1 + 1e-4) for level in sigmas)


def shift_at(seed: int, index: int, size: Shift, axes: Axes, unit: int) -> Shift:
    """Return the shift (down, right) at step `index` of a run with `seed`: whole units, along `axes` only."""
    wraps = (axes.vertical, axes.horizontal)
    down, right = (
        math.floor((seed % 10007 * 0.6180339887498949 + (index + 1) * step) % 1 * (length // unit)) * unit * along
        for step, length, along in zip(R2, size, wraps, strict=True)
    )
    return down, right


def blend_cuts(run: Callable[[Shift], Tensor], shift: Shift, size: Shift, axes: Axes, unit: int) -> Tensor:
    """Blend two runs with seams half a period apart, each weighted by the distance from its own seam.

    Weights are sin^2 of the distance over the period, so that they vanish at the seam and add up to one.
    """
    wraps = (axes.vertical, axes.horizontal)
    half = tuple(length // 2 // unit * unit * along for length, along in zip(size, wraps, strict=True))
    other = (shift[0] + half[0], shift[1] + half[1])
    first, second = run(shift), run(other)
    one, two = (_distance(cut, size, axes, first) + 1e-4 for cut in (shift, other))
    return torch.lerp(second, first, one / (one + two))


def _distance(shift: Shift, size: Shift, axes: Axes, like: Tensor) -> Tensor:
    """Return sin^2 of the distance to the seams of an image moved by `shift`, times over axes that wrap: (H, W)."""

    def line(length: int, moved: int, along: bool) -> Tensor:
        places = torch.arange(length, device=like.device, dtype=torch.float32) + 0.5 + moved
        return torch.sin(math.pi * places / length) ** 2 if along else torch.ones_like(places)

    down, across = map(line, size, shift, (axes.vertical, axes.horizontal))
    return (down[:, None] * across).to(like)


def run_rolled(call: DenoiserCall, unit: int, shift: Shift, axes: Axes) -> Tensor:
    """Call the denoiser on latents rolled by `shift`, and roll back. Arguments of that size are rolled along."""
    if shift == (0, 0):
        return call.proceed()

    def move(value: Any) -> Any:
        if isinstance(value, list):
            return [move(each) for each in value]
        fits = isinstance(value, Tensor) and value.ndim >= 4 and value.shape[-2:] == call.size
        return roll(value, shift, axes) if fits else value

    moved = {name: move(value) for name, value in call.arguments.items()}
    if call.control:
        along = partial(roll_control, shift=shift, size=call.size, unit=unit)
        moved["control"] = {name: [along(part) for part in parts] for name, parts in call.control.items()}
    return roll(call.proceed(**moved), (-shift[0], -shift[1]), axes)


def roll_control(part: Tensor | None, shift: Shift, size: Shift, unit: int) -> Tensor | None:
    """Roll the residual of a control network: (B, C, h, w) of a UNet, (B, h * w, C) of a transformer.

    Raises:
        ValueError: it has another shape.
    """
    if part is None:
        return None
    height, width = size[0] // unit, size[1] // unit
    if part.ndim == 4 and size[1] % part.shape[-1] == 0:
        scale = size[1] // part.shape[-1]
        return part.roll((shift[0] // scale, shift[1] // scale), (-2, -1))
    if part.ndim == 3 and part.shape[1] == height * width:
        grid = rearrange(part, "b (h w) c -> b h w c", h=height)
        return rearrange(grid.roll((shift[0] // unit, shift[1] // unit), (1, 2)), "b h w c -> b (h w) c")
    raise ValueError(
        f"A control network adds {tuple(part.shape)} to latents of {width * unit} x {height * unit}, which cannot be "
        "moved along with them; take it off or use a model with another method than rolling."
    )
