"""Image prompts in Flux as XLabs trained them.

The picture's queries of a double block attend to the images, before they are turned by their positions; what the images
say is added to the picture's tokens behind the block.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..patching.attention import DoubleBlockPatch, Options, QueryPatch, replace_double_block, see_queries
from .layers import Layer
from .maps import RECORD
from .steps import STEP, Step

PATCH = 2
"""Latents along a side of one token."""


class NoteQueries(QueryPatch):
    """Keeps the picture's queries until the end of their block."""

    def see(self, q: Tensor, block: int, options: Options) -> None:
        """Keep them in the step."""
        step: Step | None = options.get(STEP)
        if step is not None and step.active:
            step.queries[block] = q


class ImageBlock(DoubleBlockPatch):
    """One double block: what was there before, plus the images. Nothing is kept between calls.

    Args:
        layer: which block it is.
        previous: what was installed there.
    """

    def __init__(self, layer: Layer, previous: Any) -> None:
        super().__init__(previous)
        self.layer = layer

    def change(self, image: Tensor, options: Options) -> None:
        """Add the images of the step."""
        step: Step | None = options.get(STEP)
        # An object of this class under another pack's wrapper has taken the queries: the innermost acts.
        q = None if step is None else step.queries.pop(self.layer.number, None)
        if step is None or q is None:
            return
        height, width = (-(-side // PATCH) for side in step.size)
        # Tokens behind those of the picture belong to pictures that are given along with it.
        tokens = image[:, : height * width]
        seen = q[:, :, : height * width].transpose(1, 2).flatten(2)
        step.add(tokens, seen, self.layer, self.layer.heads, (height, width), options.get(RECORD))


def install_in_flux(clone: Any, layers: list[Layer]) -> None:
    """Put the patches into a clone of a host's MODEL, once."""
    see_queries(clone, NoteQueries())
    for layer in layers:
        replace_double_block(clone, layer.number, lambda previous, at=layer: ImageBlock(at, previous))
