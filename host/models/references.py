"""Images that edit transformers see as more tokens behind those of the image, and masks that weigh tokens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

METHODS = ("offset", "index", "uxo")
WITHOUT_NOISE = "index_timestep_zero"
"""As "index", for models that see references as images without noise."""


def places(
    sizes: Iterable[tuple[int, int]], height: int, width: int, method: str, step: float = 1.0
) -> list[tuple[float, int, int]]:
    """Return where each reference lies: its index, and its offset from the top and from the left in latents.

    "offset" lays them beside each other at index 1, in rows or columns as the sizes grow least; "index" lays each upon
    the image at an index of its own; "uxo" lays each at the lower right corner of what came before.

    Args:
        sizes: height and width of each reference in latents.
        height, width: of the image in latents, as whole tokens cover them.
        method: one of `METHODS`.
        step: from one index to the next.

    Raises:
        ValueError: another method.
    """
    if method not in METHODS:
        raise ValueError(f"the reference method is {method}, expected one of {', '.join(METHODS)}")
    found: list[tuple[float, int, int]] = []
    tall = wide = 0
    for number, (rows, columns) in enumerate(sizes, 1):
        if method == "index":
            found.append((number * step, 0, 0))
        elif method == "uxo":
            found.append((0.0, height + tall, width + wide))
            tall, wide = tall + rows, wide + columns
        else:
            beside = rows + tall > columns + wide
            top, left = (0, wide) if beside else (tall, 0)
            found.append((1.0, top, left))
            tall, wide = max(tall, rows + top), max(wide, columns + left)
    return found


def spread_mask(mask: Tensor, tokens: int) -> Tensor:
    """Return a mask (B, T + 1, T + 1), whose last row and column stand for the whole image, over all its tokens."""
    text = mask.shape[-1] - 1
    index = torch.tensor([*range(text), *[text] * tokens], device=mask.device)
    return mask[:, index][..., index]
