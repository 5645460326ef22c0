"""Replacements of attention and of blocks in a host's network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .calls import Options

Attention = Callable[..., Tensor]
"""A host's `optimized_attention`."""

DOUBLE = "double_block"
"""A host's name of the blocks of Flux that text and image go through side by side."""

SINGLE = "single_block"
"""Of those that they go through as one sequence."""


class CrossAttentionPatch:
    """A replacement of one cross-attention layer of a UNet in one call: what is there without it, and then `change`.

    Args:
        attention: the host's `optimized_attention`.
        previous: another pack's replacement, None where there is none.
    """

    def __init__(self, attention: Attention, previous: Attention | None) -> None:
        self.attention, self.previous = attention, previous

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: Options) -> Tensor:
        """q (B, L, C), k and v of the text (B, M, C) -> (B, L, C), before the output projection."""
        if self.previous is not None:
            # What it returns is its own, and `change` adds in place.
            out = self.previous(q, k, v, extra).clone()
        else:
            precision = extra.get("attn_precision")
            out = self.attention(q, k, v, extra["n_heads"], attn_precision=precision, transformer_options=extra)
        height, width = extra["activations_shape"][-2:]
        return self.change(out, q, (height, width), extra)

    def change(self, out: Tensor, q: Tensor, grid: tuple[int, int], options: Options) -> Tensor:
        """Return what the layer gives. out, q: (B, L, C); grid: (height, width) of the L image tokens."""
        raise NotImplementedError


Key = tuple[str, int, int]
"""ComfyUI's (block, number of the block, index in it) of a cross-attention layer."""


def with_cross_attention(options: Options, patches: Mapping[Key, Callable[[Any], CrossAttentionPatch]]) -> Options:
    """Return the options of a call with patches on cross-attention layers.

    Patches go around what is there in this call. So those that other packs put on a model act as well, whichever came
    first and in either form of the key, and theirs never meet ours.

    Args:
        options: transformer options of the call; they are not changed.
        patches: by layer, from another pack's replacement or None to the patch.
    """
    replaced = options.get("patches_replace", {})
    theirs = replaced.get("attn2", {})
    ours = {key: make(theirs.get(key, theirs.get(key[:2]))) for key, make in patches.items()}
    return {**options, "patches_replace": {**replaced, "attn2": {**theirs, **ours}}}


class QueryPatch:
    """A patch that sees the image's queries of Flux's double blocks, before their positions turn them."""

    def __call__(self, q: Tensor, *_: Any, extra_options: Options, **__: Any) -> Options:
        """q: (B, H, L, d), text first. Nothing is changed."""
        if extra_options.get("block_type") == "double":
            self.see(q[:, :, extra_options["img_slice"][0] :], extra_options["block_index"])
        return {}

    def see(self, q: Tensor, block: int) -> None:
        """Take the queries (B, H, N, d) of a block."""
        raise NotImplementedError


class DoubleBlockPatch:
    """A replacement of one double block of Flux in one call: what is there without it, and then `change`."""

    def __init__(self, previous: Any) -> None:
        self.previous = previous

    def __call__(self, args: Options, extra: Options) -> Options:
        """args: the block's, with img (B, N, C) and txt; to the same two."""
        out = extra["original_block"](args) if self.previous is None else self.previous(args, extra)
        self.change(out["img"], args["transformer_options"])
        return out

    def change(self, image: Tensor, options: Options) -> None:
        """Change the image's tokens (B, N, C) behind the block, in place."""
        raise NotImplementedError


def with_double_blocks(
    options: Options, queries: QueryPatch, blocks: Mapping[int, Callable[[Any], DoubleBlockPatch]]
) -> Options:
    """Return the options of a call of Flux with patches on double blocks, and one that sees their queries.

    Args:
        options: transformer options of the call; they are not changed.
        queries: sees the queries.
        blocks: by number, from another pack's replacement or None to the patch.
    """
    replaced, patches = options.get("patches_replace", {}), options.get("patches", {})
    theirs = replaced.get("dit", {})
    ours = {(DOUBLE, number): make(theirs.get((DOUBLE, number))) for number, make in blocks.items()}
    return {
        **options,
        "patches": {**patches, "attn1_patch": [*patches.get("attn1_patch", []), queries]},
        "patches_replace": {**replaced, "dit": {**theirs, **ours}},
    }


class BlockPatch:
    """A patch that sees the queries of every block of Flux, and what its attention gives before it is projected."""

    def __init__(self) -> None:
        self._queries: Tensor | None = None

    def before(self, q: Tensor, *_: Any, **__: Any) -> Options:
        """q: (B, H, L, d), text first, before their positions turn them. Nothing is changed."""
        self._queries = q
        return {}

    def behind(self, out: Tensor, extra: Options) -> Tensor:
        """out: (B, L, C), text first."""
        q, self._queries = self._queries, None
        # Another pack's replacement of a block may do without attention, or attend twice.
        if q is not None and q.shape[2] == out.shape[1]:
            block = (f"{extra['block_type']}_block", extra["block_index"])
            self.change(out, q, block, extra["img_slice"][0], extra)
        return out

    def change(self, out: Tensor, q: Tensor, block: tuple[str, int], text: int, options: Options) -> None:
        """Change what attention gives (B, L, C), in place; `text` of its tokens come before those of the image."""
        raise NotImplementedError


def with_block_attention(options: Options, patch: BlockPatch) -> Options:
    """Return the options of a call of Flux with a patch on the attention of every block; `options` stay as they are."""
    patches = options.get("patches", {})
    added = {"attn1_patch": patch.before, "attn1_output_patch": patch.behind}
    lists = {name: [*patches.get(name, []), each] for name, each in added.items()}
    return {**options, "patches": {**patches, **lists}}


Attend = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]
"""Queries, keys and values (B, H, L, d) and a mask, to (B, L, C)."""


@dataclass
class Tokens:
    """Lengths of the parts of Flux's joint sequence: text, then image."""

    text: int = 0
    image: int = 0

    @property
    def length(self) -> int:
        """Of the whole."""
        return self.text + self.image


class JointAttentionPatch:
    """What changes the joint attention of one call of Flux; one object a call.

    Args:
        options: the call's transformer options.
    """

    def __init__(self, options: Options) -> None:
        self.previous: Attention | None = options.get("optimized_attention_override")
        self.tokens = Tokens()
        self.calls = 0

    def installed(self, options: Options) -> Options:
        """Return transformer options with the patch."""
        patches = options.get("patches", {})
        return {
            **options,
            "patches": {**patches, "post_input": [*patches.get("post_input", []), self._after_input]},
            "optimized_attention_override": self._override,
        }

    def _after_input(self, values: dict[str, Any]) -> dict[str, Any]:
        self.tokens = Tokens(values["txt"].shape[1], values["img"].shape[1])
        return {**values, "txt_ids": self.text_positions(values["txt_ids"])}

    def _override(
        self, function: Attention, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any
    ) -> Tensor:
        mask = kwargs.pop("mask", None)

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            chained = (function,) if self.previous is None else (self.previous, function)
            return chained[0](*chained[1:], q, k, v, heads, *args, mask=mask, **kwargs)

        if q.ndim != 4 or q.shape[2] != self.tokens.length:
            return attend(q, k, v, mask)
        self.calls += 1
        return self.change(attend, q, k, v, mask)

    def text_positions(self, ids: Tensor) -> Tensor:
        """Return positions (B, L, A) of the text's tokens."""
        return ids

    def change(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Return what joint attention gives (B, L, C)."""
        raise NotImplementedError
