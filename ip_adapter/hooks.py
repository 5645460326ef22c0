"""Image prompts in a MODEL: patches at its cross-attentions, and wrappers that say what acts at each step."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..patching.attention import Attention, CrossAttentionPatch, Options, replace_cross_attention
from ..patching.calls import WHOLE_TOKENS, DenoiserCall, SamplingRun
from ..patching.wrappers import install as install_hooks
from ..patching.wrappers import installed
from .flux import install_in_flux
from .layers import Layer
from .maps import RECORD
from .masks import fit
from .norms import norms_apart
from .steps import STEP, RunMemory, Stack, Step, Use

KEY = "tessera_image_prompts"
RUN = "tessera_image_prompts_run"
CONDITIONAL = {"positive", "middle"}
"""Names of a guider's conditionings that see the images; all others see the unconditional tokens."""


class ImageAttention(CrossAttentionPatch):
    """One cross-attention: what was there before, plus the images. Nothing is kept between calls.

    Args:
        layer: which cross-attention it is.
        attention: the host's `optimized_attention`.
        previous: what was installed there.
    """

    note = STEP

    def __init__(self, layer: Layer, attention: Attention, previous: Attention | None) -> None:
        super().__init__(attention, previous)
        self.layer = layer

    def change(self, out: Tensor, q: Tensor, heads: int, grid: tuple[int, int], options: Options) -> Tensor:
        """Add the images of the step."""
        step: Step | None = options.get(STEP)
        if step is None or not step.active:
            return out
        return step.add(out, q, self.layer, heads, grid, options.get(RECORD))


@dataclass(frozen=True, eq=False)
class Hooks:
    """The hooks of all images in a MODEL."""

    stacks: tuple[Stack, ...]

    @property
    def uses(self) -> list[Use]:
        """All images of all stacks."""
        return [use for stack in self.stacks for use in stack.uses]

    def around_run(self, run: SamplingRun) -> Tensor:
        """Check the masks against the latents, and note what the steps need.

        Raises:
            ValueError: a mask has another aspect than the picture.
        """
        size = (run.noise.shape[-2], run.noise.shape[-1])
        pixels = run.network.pixels
        masks = {i: fit(use.mask, size, pixels) for i, use in enumerate(self.uses) if use.mask is not None}
        if masks:
            run.options[WHOLE_TOKENS] = True
        names = {cond["uuid"]: name for name, cond in run.conditionings if "uuid" in cond}
        run.options[RUN] = RunMemory(size, names, masks)
        return run.proceed()

    def around_step(self, call: DenoiserCall) -> Tensor:
        """Decide once which images act.

        Raises:
            ValueError: a masked image meets a conditioning that covers a part of the picture.
        """
        memory = call.options.get(RUN) or RunMemory()
        if memory.size not in (None, call.size) and any(use.mask is not None for use in self.uses):
            raise ValueError(
                "Image prompts with masks do not go together with conditionings that cover a part of the picture; "
                "take the areas away, or use masks on the conditionings."
            )
        active = self._active(call)
        step = Step(memory, self.stacks, active, _roles(memory, call), call.size)
        with self._norms(call.module, active, memory):
            return call.proceed_with({**call.options, STEP: step})

    def _active(self, call: DenoiserCall) -> tuple[int, ...]:
        """The numbers of the images that act; sigma is read once at most."""
        schedules = [use.schedule for use in self.uses]
        sigma = 0.0 if all(each.whole for each in schedules) else float(call.sigma.max())
        return tuple(i for i, each in enumerate(schedules) if each.covers(sigma, call.percent_to_sigma))

    def _norms(self, network: Any, active: tuple[int, ...], memory: RunMemory) -> AbstractContextManager[None]:
        """Group norms by area, where that is asked for and two areas are there."""
        found = [memory.mask_of(i, use) for i, use in enumerate(self.uses) if i in active]
        masks = [mask for mask in found if mask is not None]
        apart = any(stack.apart for stack in self.stacks)
        return norms_apart(network, masks) if apart and masks else nullcontext()


def _roles(memory: RunMemory, call: DenoiserCall) -> tuple[int, ...]:
    """By the conditionings' names; where a host does not tell them, the second of them is the negative one."""
    named = [(number, memory.names.get(identity)) for number, identity in call.conditioning_ids]
    return tuple(int(number == 1) if name is None else int(name not in CONDITIONAL) for number, name in named)


def install(model: Any, stack: Stack, attention: Attention, layers: list[Layer]) -> Any:
    """Return a clone of a host's MODEL on which the images act, together with those that acted before.

    Args:
        model: the MODEL; it stays as it is.
        stack: the images.
        attention: the host's `optimized_attention`.
        layers: the cross-attentions of its network.
    """
    earlier: Hooks | None = installed(model, KEY)
    hooks = Hooks(_merge(earlier.stacks if earlier else (), stack))
    clone = install_hooks(model, KEY, hooks, {SamplingRun: hooks.around_run, DenoiserCall: hooks.around_step})
    acting = [layer for layer in layers if any(use.weight(layer) for use in hooks.uses)]
    if acting and acting[0].in_flux:
        install_in_flux(clone, acting)
        return clone
    for layer in acting:
        replace_cross_attention(clone, layer.key, lambda previous, at=layer: ImageAttention(at, attention, previous))
    return clone


def images_in(model: Any) -> list[Use]:
    """Return the images that act in a host's MODEL."""
    hooks: Hooks | None = installed(model, KEY)
    return hooks.uses if hooks else []


def _merge(before: tuple[Stack, ...], stack: Stack) -> tuple[Stack, ...]:
    """Images that are combined in the same way are combined with each other."""
    same = next((each for each in before if each.combine == stack.combine), None)
    if same is None:
        return (*before, stack)
    apart = stack.apart or same.apart
    return tuple(Stack(s.uses + stack.uses, s.combine, apart) if s is same else s for s in before)
