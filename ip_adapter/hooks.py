"""Image prompts in a MODEL: patches of its cross-attention layers, and hooks that decide what acts at each step."""

from __future__ import annotations

from collections.abc import Sequence
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
from .reference import ActiveReference
from .steps import STEP, RunMemory, Step

KEY = "tessera_image_prompts"
RUN = "tessera_image_prompts_run"
CONDITIONAL = {"positive", "middle"}
"""Names of a guider's conditionings that see the images; all others see the unconditional tokens."""


class ImageAttention(CrossAttentionPatch):
    """One cross-attention layer: what was installed there before, plus the images. Keeps nothing between calls.

    Args:
        layer: the layer.
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
class ImagePromptHooks:
    """The hooks of all images in a MODEL.

    Attributes:
        references: the images, in the order in which they were applied.
        apart: whether group norms normalise the masked areas one by one.
    """

    references: tuple[ActiveReference, ...]
    apart: bool = False

    def around_run(self, run: SamplingRun) -> Tensor:
        """Check the masks against the latents, and keep what the steps need.

        Raises:
            ValueError: a mask has another aspect than the latents.
        """
        size = (run.noise.shape[-2], run.noise.shape[-1])
        pixels = run.network.pixels
        masks = {i: fit(each.mask, size, pixels) for i, each in enumerate(self.references) if each.mask is not None}
        if masks:
            run.options[WHOLE_TOKENS] = True
        names = {cond["uuid"]: name for name, cond in run.conditionings if "uuid" in cond}
        run.options[RUN] = RunMemory(size, names, masks)
        return run.proceed()

    def around_step(self, call: DenoiserCall) -> Tensor:
        """Decide once a step which images act.

        Raises:
            ValueError: a masked image meets a conditioning that covers a part of the image.
        """
        memory = call.options.get(RUN) or RunMemory()
        if memory.size not in (None, call.size) and any(each.mask is not None for each in self.references):
            raise ValueError(
                "Image prompts with masks do not work with conditionings that cover a part of the image; remove the "
                "areas, or use masks on the conditionings."
            )
        active = self._active(call)
        step = Step(memory, self.references, active, _roles(memory, call), call.size)
        with self._norms(call.module, active, memory):
            return call.proceed_with({**call.options, STEP: step})

    def _active(self, call: DenoiserCall) -> tuple[int, ...]:
        """Return the numbers of the images that act; sigma is read once at most."""
        schedules = [each.schedule for each in self.references]
        sigma = 0.0 if all(each.whole for each in schedules) else float(call.sigma.max())
        return tuple(i for i, each in enumerate(schedules) if each.covers(sigma, call.percent_to_sigma))

    def _norms(self, network: Any, active: tuple[int, ...], memory: RunMemory) -> AbstractContextManager[None]:
        """Normalise by area where that is asked for and an area acts."""
        found = [memory.mask_of(i, self.references[i]) for i in active]
        masks = [mask for mask in found if mask is not None]
        return norms_apart(network, masks) if self.apart and masks else nullcontext()


def _roles(memory: RunMemory, call: DenoiserCall) -> tuple[int, ...]:
    """Go by the conditionings' names; where a host does not tell them, the second of them is the negative one."""
    named = [(number, memory.names.get(identity)) for number, identity in call.conditioning_ids]
    return tuple(int(number == 1) if name is None else int(name not in CONDITIONAL) for number, name in named)


def install(
    model: Any,
    references: Sequence[ActiveReference],
    attention: Attention,
    layers: list[Layer],
    apart: bool = False,
) -> Any:
    """Return a clone of a host's MODEL on which the images act, together with those that acted before.

    Args:
        model: the MODEL; it stays as it is.
        references: the images.
        attention: the host's `optimized_attention`.
        layers: the cross-attention layers of its network.
        apart: whether group norms normalise the masked areas one by one.
    """
    earlier: ImagePromptHooks = installed(model, KEY) or ImagePromptHooks(())
    hooks = ImagePromptHooks((*earlier.references, *references), apart or earlier.apart)
    clone = install_hooks(model, KEY, hooks, {SamplingRun: hooks.around_run, DenoiserCall: hooks.around_step})
    acting = [layer for layer in layers if any(layer.number in each.weights for each in hooks.references)]
    if acting and acting[0].in_flux:
        install_in_flux(clone, acting)
        return clone
    for layer in acting:
        replace_cross_attention(clone, layer.key, lambda previous, at=layer: ImageAttention(at, attention, previous))
    return clone


def images_in(model: Any) -> tuple[ActiveReference, ...]:
    """Return the images that act in a host's MODEL."""
    hooks: ImagePromptHooks | None = installed(model, KEY)
    return hooks.references if hooks else ()
