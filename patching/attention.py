"""Replacements of attention and of blocks in a host's network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .calls import Options

Attention = Callable[..., Tensor]
"""A host's `optimized_attention`."""

DOUBLE = "double_block"
"""A host's name of the blocks of Flux that text and image go through side by side."""


class Patch:
    """A patch in a MODEL. It holds no tensors of its own, so hosts that move or copy models have nothing to do."""

    def to(self, *_: Any) -> Patch:
        """Return itself: what a patch needs goes to the device of the queries when a run asks for it."""
        return self

    def models(self) -> list[Any]:
        """Return what has to be on the device while it acts: nothing."""
        return []

    def __deepcopy__(self, memo: dict[int, Any]) -> Patch:
        return self


class CrossAttentionPatch(Patch):
    """A replacement of one cross-attention layer of a UNet: what was there before, and then `change`.

    Args:
        attention: the host's `optimized_attention`.
        previous: what was installed there.
    """

    note: str
    """Transformer option that `change` reads. Where another pack has wrapped a patch of this kind and both are
    installed, only the outermost gets it and applies."""

    def __init__(self, attention: Attention, previous: Attention | None) -> None:
        self.attention, self.previous = attention, previous

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: Options) -> Tensor:
        """q (B, L, C), k and v of the text (B, M, C) -> (B, L, C), before the output projection."""
        heads = extra["n_heads"]
        if self.previous is not None:
            # What it returns is its own, and `change` adds in place.
            out = self.previous(q, k, v, {name: value for name, value in extra.items() if name != self.note}).clone()
        else:
            precision = extra.get("attn_precision")
            out = self.attention(q, k, v, heads, attn_precision=precision, transformer_options=extra)
        height, width = extra["activations_shape"][-2:]
        return self.change(out, q, heads, (height, width), extra)

    def change(self, out: Tensor, q: Tensor, heads: int, grid: tuple[int, int], options: Options) -> Tensor:
        """Return what the layer gives. out, q: (B, L, C); grid: (height, width) of the L image tokens."""
        raise NotImplementedError


def replace_cross_attention(clone: Any, key: tuple[str, int, int], make: Callable[[Any], CrossAttentionPatch]) -> None:
    """Put a patch on a cross-attention of a clone of a MODEL, unless one of its class is there.

    Args:
        clone: the MODEL; it is changed.
        key: ComfyUI's (block, number of the block, index in it).
        make: the patch, of what was installed there.
    """
    replaced = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    previous = replaced.get(key, replaced.get(key[:2]))
    patch = make(previous)
    if not isinstance(previous, type(patch)):
        clone.set_model_attn2_replace(patch, *key)


class QueryPatch(Patch):
    """A patch that sees the image's queries of Flux's double blocks, before their positions turn them."""

    def __call__(self, q: Tensor, *_: Any, extra_options: Options, **__: Any) -> Options:
        """q: (B, H, L, d), text first. Nothing is changed."""
        if extra_options.get("block_type") == "double":
            self.see(q[:, :, extra_options["img_slice"][0] :], extra_options["block_index"], extra_options)
        return {}

    def see(self, q: Tensor, block: int, options: Options) -> None:
        """Take the queries (B, H, N, d) of a block."""
        raise NotImplementedError


class DoubleBlockPatch(Patch):
    """A replacement of one double block of Flux: what was there before, and then `change`."""

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


def see_queries(clone: Any, patch: QueryPatch) -> None:
    """Let a patch see the queries of a clone of a MODEL, unless one of its class does."""
    patches = clone.model_options["transformer_options"].get("patches", {}).get("attn1_patch", ())
    if not any(isinstance(each, type(patch)) for each in patches):
        clone.set_model_patch(patch, "attn1_patch")


def replace_double_block(clone: Any, number: int, make: Callable[[Any], DoubleBlockPatch]) -> None:
    """Put a patch on a double block of a clone of a MODEL, unless one of its class is there."""
    replaced = clone.model_options["transformer_options"].get("patches_replace", {}).get("dit", {})
    previous = replaced.get((DOUBLE, number))
    patch = make(previous)
    if not isinstance(previous, type(patch)):
        clone.set_model_patch_replace(patch, "dit", DOUBLE, number)


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
