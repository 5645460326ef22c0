"""Image prompts in Flux as XLabs trained them.

The image queries of a double block attend to the reference images before rotary positions are applied; the result is
added to the image tokens behind the block.
"""

from __future__ import annotations

from typing import Any

from einops import rearrange
from torch import Tensor

from ..patching.attention import DoubleBlockPatch, Options, QueryPatch, replace_double_block, see_queries
from .layers import Layer
from .maps import RECORD
from .steps import STEP, Step

TOKEN = 2
"""Latents along a side of one token."""


class NoteQueries(QueryPatch):
    """Keeps the image queries until the end of their block."""

    def see(self, q: Tensor, block: int, options: Options) -> None:
        """Keep the queries in the step."""
        step: Step | None = options.get(STEP)
        if step is not None and step.active:
            step.queries[block] = q


class ImageBlock(DoubleBlockPatch):
    """One double block: what was installed there before, plus the images. Keeps nothing between calls.

    Args:
        layer: the block.
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
        height, width = (-(-side // TOKEN) for side in step.size)
        # Tokens behind those of the image belong to context images, such as Kontext's.
        tokens = image[:, : height * width]
        seen = rearrange(q[:, :, : height * width], "b h n d -> b n (h d)")
        step.add(tokens, seen, self.layer, self.layer.heads, (height, width), options.get(RECORD))


def install_in_flux(clone: Any, layers: list[Layer]) -> None:
    """Install the patches in a clone of a host's MODEL, once."""
    see_queries(clone, NoteQueries())
    for layer in layers:
        replace_double_block(clone, layer.number, lambda previous, at=layer: ImageBlock(at, previous))
