"""Hooks of image prompts in diffusers' own networks, for as long as a `with` block lasts.

They take the queries of each layer and add the images to what its attention gives, so that any attention processor,
LoRA and offloading go on working: in a UNet before the output projection, in Flux behind the double block, in Stable
Diffusion 3 before the projection for pixels.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from ..patching.attention import DOUBLE
from ..patching.joint_blocks import JointBlockPatch, hook_block
from .layers import TOKEN, Layer
from .reference import ActiveReference
from .run import RunMemory
from .sd3 import ImagesInBlock
from .stack import KeptImages
from .steps import Step
from .timed import TimedGroup, TimedTokens

TIMESTEPS = 1000
"""Training timesteps of the UNets that IP-Adapters are made for."""

FLUX_SHIFT = math.exp(1.15)
"""Shift of Flux's noise levels at one megapixel, with which a fraction of the schedule becomes a sigma."""

SD3_SHIFT = 3.0
"""Shift of the noise levels of Stable Diffusion 3."""


@dataclass(eq=False)
class UNetHooks:
    """What image prompts need in the calls of one network.

    Attributes:
        kept: the images, and the layers where they act.
        guided: whether the first half of a batch is unconditional.
        memory: of the latents' size that was seen last.
        step: the call that is running, None where no image acts in it.
        queries: (B, L, C) of the layers that are running, by number and by which adapters take them.
    """

    kept: KeptImages
    guided: bool
    memory: RunMemory | None = None
    step: Step | None = None
    queries: dict[tuple[int, bool], Tensor] = field(default_factory=dict)

    @property
    def references(self) -> Sequence[ActiveReference]:
        """The images."""
        return self.kept.references

    def register(self, network: nn.Module) -> Iterator[RemovableHandle]:
        """Register the hooks of the network and of the layers where an image acts."""
        yield network.register_forward_pre_hook(self._begin, with_kwargs=True)
        for layer in self.kept.layers:
            yield from self._hook(network, layer)

    def _hook(self, network: nn.Module, layer: Layer) -> Iterator[RemovableHandle]:
        attention: Any = network.get_submodule(f"{layer.name}.attn2")

        def see(_: nn.Module, __: Any, q: Tensor) -> None:
            self.queries[layer.number, False] = q

        def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.add(args[0], layer)

        yield attention.to_q.register_forward_hook(see)
        yield attention.to_out[0].register_forward_pre_hook(add)

    def add(self, out: Tensor, layer: Layer) -> None:
        """Add the images to the output of a layer (B, L, C), in place."""
        q = self.queries.pop((layer.number, False))
        if self.step is not None:
            self.step.add(out, q, layer, grid_of(self.step.size, q.shape[1]))

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Decide once a call which images act.

        Raises:
            ValueError: a mask has another aspect than the latents, or the batch has no halves.
        """
        given = inspect.signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments
        size, rows = self.shape(given)
        if self.guided and rows % 2:
            raise ValueError(
                f"The batch has {rows} rows, but guidance needs an unconditional half; pass guidance=False to "
                "image_prompts where the pipeline runs without classifier-free guidance."
            )
        if self.memory is None or self.memory.size != size:
            self.memory = RunMemory.begin(self.kept, size)
        schedules = [each.schedule for each in self.references]
        level = 0.0 if all(each.whole for each in schedules) else float(torch.as_tensor(given["timestep"]).max())
        active = [i for i, each in enumerate(schedules) if each.covers(level, self.level_at)]
        roles = (1, 0) if self.guided else (0,)
        ids = [(role, None) for role in roles]
        self.step = self.memory.step(ids, active, size, self.device(given)) if active else None

    @staticmethod
    def shape(given: dict[str, Any]) -> tuple[tuple[int, int], int]:
        """Return (height, width) of the latents and the rows of the batch in a call."""
        sample = given["sample"]
        return (sample.shape[-2], sample.shape[-1]), len(sample)

    @staticmethod
    def device(given: dict[str, Any]) -> torch.device:
        """Return the device of a call."""
        return given["sample"].device

    @staticmethod
    def level_at(percent: float) -> float:
        """Return the timestep at a fraction of the schedule, as ComfyUI counts it."""
        if percent <= 0:
            return math.inf
        return (1 - percent) * (TIMESTEPS - 1) if percent < 1 else -math.inf


class FluxHooks(UNetHooks):
    """What image prompts need in the calls of a Flux transformer."""

    text: int = 0
    """Tokens of the prompt in a call."""

    def _hook(self, network: nn.Module, layer: Layer) -> Iterator[RemovableHandle]:
        double = layer.key[0] == DOUBLE
        block: Any = network.get_submodule(f"{'' if double else 'single_'}transformer_blocks.{layer.key[1]}")
        for joint in {each.joint for each in self.references if each.acts_at(layer.number)}:

            def see(_: nn.Module, __: Any, q: Tensor, joint: bool = joint) -> None:
                self.queries[layer.number, joint] = rearrange(q, "b l h d -> b l (h d)")

            yield block.attn.norm_q.register_forward_hook(see)
            if not joint:
                yield block.register_forward_hook(lambda _, __, out: self._add(out[1], layer, 0, False))
            elif double:
                yield block.attn.to_out[0].register_forward_pre_hook(lambda _, args: self._add(args[0], layer, 0, True))
            else:
                yield block.attn.register_forward_hook(lambda _, __, out: self._add(out, layer, self.text, True))

    def _add(self, out: Tensor, layer: Layer, text: int, joint: bool) -> None:
        """Add the images to tokens (B, L, C), in place, of which so many are text; context images stay as they are."""
        q = self.queries.pop((layer.number, joint))
        if self.step is not None:
            height, width = layer.grid(self.step.size)
            own = slice(text + height * width)
            self.step.add(out[:, own], q[:, own], layer, (height, width), None, text, joint)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super()._begin(module, args, kwargs)
        given = inspect.signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments
        self.text = given["encoder_hidden_states"].shape[1]

    @staticmethod
    def device(given: dict[str, Any]) -> torch.device:
        """Return the device of a call."""
        return given["hidden_states"].device

    @staticmethod
    def shape(given: dict[str, Any]) -> tuple[tuple[int, int], int]:
        """Return (height, width) of the latents, from the positions of their tokens, and the rows of the batch."""
        ids = given["img_ids"]
        ids = ids[0] if ids.ndim == 3 else ids
        height, width = (ids[ids[:, 0] == 0][:, 1:].amax(dim=0) + 1).tolist()
        return (TOKEN * int(height), TOKEN * int(width)), len(given["hidden_states"])

    @staticmethod
    def level_at(percent: float) -> float:
        """Return the sigma at a fraction of the schedule, at one megapixel."""
        return _shifted(percent, FLUX_SHIFT)


class SD3Hooks(UNetHooks):
    """What image prompts need in the calls of a Stable Diffusion 3 transformer."""

    found: Sequence[tuple[TimedGroup, TimedTokens]] = ()
    """The images, with their tokens at the noise level of the call."""

    def _hook(self, network: nn.Module, layer: Layer) -> Iterator[RemovableHandle]:
        yield from hook_block(network, layer.key[1], _ImagesOfCall(self, layer))

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super()._begin(module, args, kwargs)
        if self.step is None or self.memory is None:
            return
        given = inspect.signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments
        groups = self.memory.timed_on(self.device(given))
        timestep, active = given["timestep"].reshape(-1)[:1], self.step.active
        self.found = [(group, tokens) for group in groups if (tokens := group.at(timestep, active)) is not None]

    @staticmethod
    def shape(given: dict[str, Any]) -> tuple[tuple[int, int], int]:
        """Return (height, width) of the latents and the rows of the batch in a call."""
        latents = given["hidden_states"]
        return (latents.shape[-2], latents.shape[-1]), len(latents)

    @staticmethod
    def device(given: dict[str, Any]) -> torch.device:
        """Return the device of a call."""
        return given["hidden_states"].device

    @staticmethod
    def level_at(percent: float) -> float:
        """Return the timestep at a fraction of the schedule."""
        return TIMESTEPS * _shifted(percent, SD3_SHIFT)


class _ImagesOfCall(JointBlockPatch):
    """The images of the call that runs, at one block."""

    def __init__(self, hooks: SD3Hooks, layer: Layer) -> None:
        super().__init__()
        self.hooks, self.layer = hooks, layer

    def change(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        step = self.hooks.step
        if step is None:
            return out
        return ImagesInBlock(self.layer, step, self.hooks.found, _attention).change(out, q, k, v)


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _shifted(percent: float, shift: float) -> float:
    if percent <= 0 or percent >= 1:
        return math.inf if percent <= 0 else -math.inf
    return shift / (shift + 1 / (1 - percent) - 1)


def grid_of(size: tuple[int, int], length: int) -> tuple[int, int]:
    """Return (height, width) of the level of a UNet that has `length` pixels; each level halves, rounding up.

    Args:
        size: of the latents (height, width).
        length: pixels of the level.

    Raises:
        ValueError: no level has so many.

    Examples:
        >>> from tessera.ip_adapter.network_hooks import grid_of
        >>> grid_of((64, 49), 16 * 13)
        (16, 13)
    """
    height, width = size
    while height * width > length:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != length:
        raise ValueError(
            f"A layer has {length} pixels, which no halving of {size[0]} x {size[1]} latents gives; image prompts need "
            "a UNet that halves its levels."
        )
    return height, width
