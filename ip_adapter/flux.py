"""Image prompts in Flux, as XLabs and InstantX trained them.

Queries attend to the reference images before rotary positions are applied. XLabs' are those of the image in double
blocks, and the result is added to the image tokens behind the block. InstantX' are those of the image in double blocks
and of all tokens in single ones, and the result is added to that of the attention, before it is projected.
"""

from __future__ import annotations

from typing import Any

from einops import rearrange
from torch import Tensor

from ..patching.attention import (
    DOUBLE,
    BlockPatch,
    DoubleBlockPatch,
    Options,
    QueryPatch,
    with_block_attention,
    with_double_blocks,
)
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


class JointImages(BlockPatch):
    """The attention of all blocks in one call: what it gives, plus the images.

    Args:
        layers: the blocks where images act.
        step: the call.
    """

    def __init__(self, layers: list[Layer], step: Step) -> None:
        super().__init__()
        self.layers, self.step = {layer.key[:2]: layer for layer in layers}, step

    def change(self, out: Tensor, q: Tensor, block: tuple[str, int], text: int, options: Options) -> None:
        """Add the images of the step."""
        layer = self.layers.get(block)
        if layer is None:
            return
        height, width = layer.grid(self.step.size)
        # Text of double blocks sees no images; tokens behind those of the image belong to context images.
        first = text if block[0] == DOUBLE else 0
        own = slice(first, text + height * width)
        seen = rearrange(q[:, :, own], "b h n d -> b n (h d)")
        self.step.add(out[:, own], seen, layer, (height, width), options.get(RECORD), text - first, joint=True)


def with_images_in_flux(options: Options, layers: list[Layer], step: Step) -> Options:
    """Return the options of a call of Flux in which the images act."""
    joint, behind = ([layer for layer in layers if step.acts(layer, each)] for each in (True, False))
    if joint:
        options = with_block_attention(options, JointImages(joint, step))
    return _behind_blocks(options, behind, step) if behind else options


def _behind_blocks(options: Options, layers: list[Layer], step: Step) -> Options:
    queries = TakenQueries()
    blocks = {layer.number: lambda previous, at=layer: ImageBlock(at, step, queries, previous) for layer in layers}
    return with_double_blocks(options, queries, blocks)
