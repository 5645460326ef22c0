"""What would fit where a device ran out of memory: from what was held and asked for at the moment when it did."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import sqrt

import torch

from ..errors import TooLargeError

UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
ASKED_FOR = re.compile(rf"to allocate ([\d.]+) ({'|'.join(UNITS)})")
"""What PyTorch says of how much it wanted."""

SAFE = 0.9
"""Of the memory, for a smaller run: it is never used up to its last byte, and more may be asked for later."""

MULTIPLE = 64
"""Pixels that sides are counted in."""


@contextmanager
def fitting(device: torch.device, shape: Sequence[int], pixels: int, advice: str = "") -> Iterator[None]:
    """Say which size and batch would fit, when a GPU runs out of memory inside.

    Args:
        device: where a model runs, which is loaded.
        shape: of the latents (B, C, h, w), or (B, C, frames, h, w).
        pixels: of an image to one of its latents, per side.
        advice: what would take less memory besides.

    Raises:
        TooLargeError: the GPU ran out of memory.
    """
    before = held(device)
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        # The frames of the traceback still hold what the step had made.
        needed = held(device) - before + _asked_for(str(error))
        said = smaller(shape, pixels, (available(device) - before) / max(1, needed))
        raise TooLargeError(f"{said}; {advice}" if advice else said) from error


def held(device: torch.device) -> int:
    """Return the bytes that tensors hold on a GPU; 0 elsewhere."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def available(device: torch.device) -> int:
    """Return the bytes that tensors of this process may hold on a GPU in all; 0 elsewhere."""
    if device.type != "cuda":
        return 0
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)


def _asked_for(said: str) -> int:
    found = ASKED_FOR.search(said)
    return int(float(found[1]) * UNITS[found[2]]) if found else 0


def smaller(shape: Sequence[int], pixels: int, share: float) -> str:
    """Return what to do where a run needs more memory than there is.

    Memory grows with the batch and with the area: attention that needs more than that is computed in parts.

    Args:
        shape, pixels: as for `fitting`.
        share: of what the run needs, as far as it came, how much there is.

    >>> smaller((4, 4, 128, 128), 8, 0.6)
    'a batch of 4 at 1024 x 1024 is too large; a batch of 2, or 704 x 704, would fit'
    >>> smaller((1, 4, 128, 96), 8, 0.5)
    '768 x 1024 is too large; 512 x 640 would fit'
    """
    batch, (height, width) = shape[0], (side * pixels for side in shape[-2:])
    share = SAFE * min(share, 1.0)
    fits = [f"a batch of {int(batch * share)}"] if batch * share >= 1 and batch > 1 else []
    sides = [int(side * sqrt(max(share, 0.0)) // MULTIPLE * MULTIPLE) for side in (width, height)]
    if min(sides):
        fits.append(f"{sides[0]} x {sides[1]}")
    found = f"a batch of {batch} at {width} x {height}" if batch > 1 else f"{width} x {height}"
    return f"{found} is too large; {', or '.join(fits) or 'nothing'}{',' * (len(fits) > 1)} would fit"
