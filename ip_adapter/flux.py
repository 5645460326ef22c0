"""Image prompts in Flux as XLabs trained them.

The image queries of a double block attend to the reference images before rotary positions are applied; the result is
added to the image tokens behind the block.
"""

from __future__ import annotations

from typing import Any

from einops import rearrange
from torch import Tensor

from ..patching.attention import DoubleBlockPatch, Options, QueryPatch, with_double_blocks
from .layers import Layer
from .maps import RECORD
from .steps import Step


class TakenQueries(QueryPatch):
    """The image queries of the double blocks that are running."""

    def __init__(self) -> None:
        self.taken: dict[int, Tensor] = {}

    def see(self, q: Tensor, block: int) -> None:
        """Take the queries."""
        self.taken[block] = q


class ImageBlock(DoubleBlockPatch):
    """One double block in one call: what is there without images, plus the images.

    Args:
        layer: the block.
        step: the call.
        queries: of the call.
        previous: what is there.
    """

    def __init__(self, layer: Layer, step: Step, queries: TakenQueries, previous: Any) -> None:
        super().__init__(previous)
        self.layer, self.step, self.queries = layer, step, queries

    def change(self, image: Tensor, options: Options) -> None:
        """Add the images of the step."""
        q = self.queries.taken.pop(self.layer.number, None)
        # Another pack's replacement that does not call the block has no queries.
        if q is None:
            return
        height, width = self.layer.grid(self.step.size)
        # Tokens behind those of the image belong to context images, such as Kontext's.
        tokens = image[:, : height * width]
        seen = rearrange(q[:, :, : height * width], "b h n d -> b n (h d)")
        self.step.add(tokens, seen, self.layer, (height, width), options.get(RECORD))


def with_images_in_flux(options: Options, layers: list[Layer], step: Step) -> Options:
    """Return the options of a call of Flux in which the images act."""
    queries = TakenQueries()
    blocks = {layer.number: lambda previous, at=layer: ImageBlock(at, step, queries, previous) for layer in layers}
    return with_double_blocks(options, queries, blocks)
