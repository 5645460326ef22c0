"""The layers where images are attended to, as diffusers, ComfyUI and adapter files name them.

In a UNet these are the cross-attention layers; Flux and Stable Diffusion 3 have none, there they are their blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..patching.attention import DOUBLE, SINGLE
from ..patching.joint_blocks import JOINT, attention_of, joint_blocks

Key = tuple[str, int, int]

TOKEN = 2
"""Latents along a side of one token of most transformers."""


@dataclass(frozen=True)
class Layer:
    """One cross-attention layer, or one of a transformer's blocks.

    Attributes:
        number: N of `N.to_k_ip` in adapter files: 1, 3, 5, ... down, then up, then the middle; in transformers 0, 1,
            2, ..., in Flux double blocks first.
        key: ComfyUI's (block, number of the block, index in it).
        name: diffusers' path, such as "up_blocks.1.attentions.0.transformer_blocks.0"; in transformers ComfyUI's, such
            as "double_blocks.0", "single_blocks.0" or "joint_blocks.0".
        channels: of queries.
        width: of the text; in Stable Diffusion 3, where image tokens are as wide as pixels, of these.
        heads: of its attention.
        level: of its resolution in a UNet: how often it halves the latents.
        token: latents along a side of a transformer's token.
    """

    number: int
    key: Key
    name: str
    channels: int
    width: int
    heads: int
    level: int = 0
    token: int = TOKEN

    @property
    def in_flux(self) -> bool:
        """Whether the layer is a block of Flux, or of a relative such as Chroma."""
        return self.key[0] in (DOUBLE, SINGLE)

    @property
    def in_sd3(self) -> bool:
        """Whether the layer is a block of Stable Diffusion 3."""
        return self.key[0] == JOINT

    @property
    def in_unet(self) -> bool:
        """Whether the layer belongs to a UNet."""
        return not (self.in_flux or self.in_sd3)

    @property
    def model(self) -> str:
        """What kind of model has it, for messages."""
        return "Flux" if self.in_flux else "Stable Diffusion 3" if self.in_sd3 else "a UNet"

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of its image tokens for latents of a size, rounded up."""
        step = 2**self.level if self.in_unet else self.token
        return -(-size[0] // step), -(-size[1] // step)


def find_layers(network: nn.Module) -> list[Layer]:
    """Find the layers of ComfyUI's `UNetModel`, `Flux` or `MMDiT`, or of diffusers' ones, anywhere in `network`.

    Raises:
        ValueError: there is neither a UNet with cross-attention, nor a Flux or Stable Diffusion 3.
    """
    if (joint := joint_blocks(network)) is not None:
        return _sd3(joint)
    for module in network.modules():
        if hasattr(module, "double_blocks") and hasattr(getattr(module, "txt_in", None), "weight"):
            flux: Any = module
            return _flux(flux.double_blocks, flux.single_blocks, flux.txt_in, flux.num_heads, flux.patch_size)
        if hasattr(module, "single_transformer_blocks") and hasattr(module, "context_embedder"):
            flux = module
            blocks, heads = flux.transformer_blocks, flux.transformer_blocks[0].attn.heads
            return _flux(blocks, flux.single_transformer_blocks, flux.context_embedder, heads)
        if hasattr(module, "input_blocks") and hasattr(module, "output_blocks"):
            found = list(_comfyui(module))
        elif hasattr(module, "down_blocks") and hasattr(module, "up_blocks"):
            found = list(_diffusers(module))
        else:
            continue
        if found:
            return [_layer(2 * k + 1, *place) for k, place in enumerate(found)]
    raise ValueError(
        f"IP-Adapters act on UNet models (Stable Diffusion 1.5, SDXL), on Flux and on Stable Diffusion 3.5, but the "
        f"model is a {type(network).__name__}; load one of those."
    )


def layers_of(count: int, layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers where an adapter for so many acts: in Flux all blocks, or the double ones alone."""
    double = [layer for layer in layers if layer.key[0] == DOUBLE]
    return double if double and count == len(double) else list(layers)


def _flux(double: Any, single: Any, text: Any, heads: int, token: int = TOKEN) -> list[Layer]:
    channels, width = text.weight.shape
    places = [((DOUBLE, i, 0), f"double_blocks.{i}") for i in range(len(double))]
    places += [((SINGLE, i, 0), f"single_blocks.{i}") for i in range(len(single))]
    return [Layer(number, *place, channels, width, heads, token=token) for number, place in enumerate(places)]


def _sd3(blocks: Any) -> list[Layer]:
    channels, heads = attention_of(blocks[0])
    return [Layer(i, (JOINT, i, 0), f"joint_blocks.{i}", channels, channels, heads) for i in range(len(blocks))]


Place = tuple[Key, str, Any, int]


def _layer(number: int, key: Key, name: str, attention: Any, level: int) -> Layer:
    channels, width = attention.to_q.weight.shape[0], attention.to_k.weight.shape[1]
    return Layer(number, key, name, channels, width, attention.heads, level)


def _comfyui(unet: Any) -> Iterator[Place]:
    size = 1 + (unet.num_res_blocks if isinstance(unet.num_res_blocks, int) else unet.num_res_blocks[0])
    deepest = len(unet.input_blocks) // size - 1
    for side, blocks, first, name in (("input", unet.input_blocks, 1, "down"), ("output", unet.output_blocks, 0, "up")):
        for number, block in enumerate(blocks):
            step, layer = divmod(number - first, size)
            level = step if side == "input" else deepest - step
            yield from _blocks(block, (side, number), f"{name}_blocks.{step}.attentions.{layer}", level)
    if unet.middle_block is not None:
        yield from _blocks(unet.middle_block, ("middle", 0), "mid_block.attentions.0", deepest)


def _diffusers(unet: Any) -> Iterator[Place]:
    size, deepest = 1 + len(unet.down_blocks[0].resnets), len(unet.down_blocks) - 1
    for side, blocks, first, name in (("input", unet.down_blocks, 1, "down"), ("output", unet.up_blocks, 0, "up")):
        for step, block in enumerate(blocks):
            level = step if side == "input" else deepest - step
            for layer, attention in enumerate(getattr(block, "attentions", ())):
                number = size * step + layer + first
                yield from _blocks(attention, (side, number), f"{name}_blocks.{step}.attentions.{layer}", level)
    for attention in getattr(unet.mid_block, "attentions", ()):
        yield from _blocks(attention, ("middle", 0), "mid_block.attentions.0", deepest)


def _blocks(module: nn.Module, block: tuple[str, int], name: str, level: int) -> Iterator[Place]:
    """Find the cross-attention layers of every transformer in a block."""
    for part in module.modules():
        blocks = getattr(part, "transformer_blocks", ())
        for index, transformer in enumerate(blocks):
            if transformer.attn2 is not None:
                yield (*block, index), f"{name}.transformer_blocks.{index}", transformer.attn2, level
