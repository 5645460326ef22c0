"""Hooks inside the transformer blocks of a diffusers UNet.

Drop-in replacement for their part of `comfy.ldm.modules.attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Options = dict[str, Any]
ATTENTIONS = ("attn1", "attn2")
OUTPUT_BLOCK = "output_block_patch"
PATCHES = {OUTPUT_BLOCK, *(f"{kind}_{place}" for kind in ATTENTIONS for place in ("patch", "output_patch"))}


def optimized_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Return attention of q (B, L, C) to k, v (B, M, C) -> (B, L, C), as diffusers' own processor computes it.

    `skip_reshape`: q, k and v are (B, H, L or M, D) already. A mask of three dimensions is (B, L, M).
    """
    if not skip_reshape:
        q, k, v = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (q, k, v))
    if mask is not None and mask.ndim == 3:
        mask = mask[:, None]
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)


def unknown_patches(options: Options) -> list[str]:
    """Return the hooks into blocks that are not known here."""
    return sorted({*options.get("patches", {})} - PATCHES | {*options.get("patches_replace", {})} - {*ATTENTIONS})


@contextmanager
def patched_attention(unet: Any, options: Options, latent: Tensor) -> Iterator[None]:
    """Make the UNet call the hooks of `options` under ComfyUI's names; without hooks nothing is touched.

    Args:
        unet: a diffusers UNet.
        options: `transformer_options`.
        latent: its input (B, C, H, W).
    """
    if not options.get("patches") and not options.get("patches_replace"):
        yield
        return
    options = {**options, "original_shape": list(latent.shape)}
    blocks = list(transformers(unet))
    undo = []
    try:
        undo += _hook_skips(unet, options)
        for index, (name, transformer) in enumerate(blocks):
            shape: Options = {}
            undo.append(transformer.register_forward_pre_hook(_note_shape(shape)).remove)
            for inner, block in enumerate(transformer.transformer_blocks):
                place = {"block": name, "block_index": inner, "transformer_index": index}
                for kind in ATTENTIONS:
                    attention, hooked = getattr(block, kind), HookedProcessor(kind, {**options, **place}, shape)
                    if hooked.acts:
                        undo.append(_restore(attention, attention.processor))
                        attention.processor = hooked
        yield
    finally:
        for each in undo:
            each()


def _hook_skips(unet: Any, options: Options) -> list[Callable[[], None]]:
    """Hook what blocks on the way up get; return what undoes it."""
    patches = options.get("patches", {}).get(OUTPUT_BLOCK, ())
    if not patches:
        return []
    undo, below, number = [], unet.config.block_out_channels[-1], 0
    for block in unet.up_blocks:
        for resnet in block.resnets:
            undo.append(resnet.register_forward_pre_hook(_joined(patches, below, ("output", number), options)).remove)
            below, number = resnet.out_channels, number + 1
    return undo


def _joined(
    patches: Any, channels: int, block: tuple[str, int], options: Options
) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]:
    def change(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, skip = inputs[0][:, :channels].clone(), inputs[0][:, channels:]
        for patch in patches:
            hidden, skip = patch(hidden, skip, {**options, "block": block})
        return torch.cat([hidden, skip], 1), *inputs[1:]

    return change


def transformers(unet: Any) -> Iterator[tuple[tuple[str, int], Any]]:
    """Yield the transformers of a UNet in the order in which they run, with ComfyUI's names of their blocks."""
    from ..layouts.ldm_unet import original_block

    layers = len(unet.down_blocks[0].resnets)
    groups = [
        *((f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)),
        ("mid_block", unet.mid_block),
        *((f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)),
    ]
    for name, group in groups:
        for i, transformer in enumerate(getattr(group, "attentions", ())):
            yield original_block(f"{name}.resnets.{i}", layers), transformer


def _note_shape(shape: Options) -> Callable[[Any, tuple[Tensor, ...]], None]:
    def note(_: Any, inputs: tuple[Tensor, ...]) -> None:
        shape["activations_shape"] = list(inputs[0].shape)

    return note


def _restore(attention: Any, processor: Any) -> Callable[[], None]:
    return lambda: setattr(attention, "processor", processor)


class HookedProcessor:
    """A diffusers attention processor that calls ComfyUI's hooks.

    Args:
        kind: "attn1" (self-attention) or "attn2" (cross-attention).
        options: `transformer_options`, with `block` and `block_index`.
        shape: holds `activations_shape` of the transformer while it runs.
    """

    def __init__(self, kind: str, options: Options, shape: Options) -> None:
        self.options, self.shape = options, shape
        patches = options.get("patches", {})
        self.before, self.after = patches.get(f"{kind}_patch", ()), patches.get(f"{kind}_output_patch", ())
        replacements = options.get("patches_replace", {}).get(kind, {})
        block = options["block"]
        self.replace = replacements.get((*block, options["block_index"]), replacements.get(block))
        self.acts = bool(self.before or self.after or self.replace)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from hidden_states (B, L, C) to encoder_hidden_states (B, M, D); return (B, L, C)."""
        n = hidden_states
        context = value = n if encoder_hidden_states is None else encoder_hidden_states
        extra = {key: item for key, item in self.options.items() if key not in ("patches", "patches_replace")}
        head = attn.to_q.weight.shape[0] // attn.heads
        extra |= {**self.shape, "n_heads": attn.heads, "dim_head": head, "attn_precision": None}
        for patch in self.before:
            n, context, value = patch(n, context, value, extra)
        q, k, v = attn.to_q(n), attn.to_k(context), attn.to_v(value)
        out = self.replace(q, k, v, extra) if self.replace else optimized_attention(q, k, v, attn.heads)
        out = attn.to_out[1](attn.to_out[0](out))
        for patch in self.after:
            out = patch(out, extra)
        return out
