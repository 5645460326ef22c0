"""Image prompts in a MODEL: hooks that decide what acts in each call, and patch its cross-attention layers there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..patching.attention import Attention, CrossAttentionPatch, Options, with_cross_attention
from ..patching.calls import LESS_MEMORY, WHOLE_TOKENS, CondBatch, DenoiserCall, SamplingRun
from ..patching.residents import Manage, keep_resident, place_of
from ..patching.wrappers import install as install_hooks
from ..patching.wrappers import installed
from .face_lora import check_once
from .flux import with_images_in_flux
from .layers import Layer
from .maps import RECORD
from .masks import Grid, halvings
from .norms import AreaNorms, SharesAt, shares_of
from .reference import ActiveReference
from .run import RunMemory
from .sd3 import images_in_blocks
from .stack import KeptImages
from .steps import Step
from .timed import TimedGroup

KEY = "tessera_image_prompts"
RUN = "tessera_image_prompts_run"


class ImageAttention(CrossAttentionPatch):
    """One cross-attention layer in one call: what is there without images, plus the images.

    Args:
        layer: the layer.
        step: the call.
        attention: the host's `optimized_attention`.
        previous: what is there.
    """

    def __init__(self, layer: Layer, step: Step, attention: Attention, previous: Attention | None) -> None:
        super().__init__(attention, previous)
        self.layer, self.step = layer, step

    def change(self, out: Tensor, q: Tensor, grid: Grid, options: Options) -> Tensor:
        """Add the images of the step."""
        return self.step.add(out, q, self.layer, grid, options.get(RECORD))


@dataclass(frozen=True, eq=False)
class ImagePromptHooks:
    """The hooks of all images in a MODEL.

    Attributes:
        kept: the images, in the order in which they were applied, and the layers where they act.
        attention: the host's `optimized_attention`.
        apart: whether group norms normalise the masked areas one by one.
        norms: the group norms.
    """

    kept: KeptImages
    attention: Attention
    apart: bool = False
    norms: AreaNorms = field(default_factory=AreaNorms)

    @property
    def references(self) -> Sequence[ActiveReference]:
        """The images."""
        return self.kept.references

    def around_run(self, run: SamplingRun) -> Tensor:
        """Check the masks against the latents, and keep what the steps need.

        Raises:
            ValueError: a mask has another aspect than the latents, or the model has a LoRA twice.
        """
        check_once(run)
        size = (run.noise.shape[-2], run.noise.shape[-1])
        names = {cond["uuid"]: name for name, cond in run.conditionings if "uuid" in cond}
        memory = RunMemory.begin(self.kept, size, run.network.pixels, names)
        if memory.masked:
            run.options[WHOLE_TOKENS] = True
        for reference in self.references:
            reference.schedule.prepare(run, "Image Prompt", "the reference does not act")
        run.options[RUN] = memory
        if advice := self.kept.less_memory:
            run.options[LESS_MEMORY] = advice
        with self.norms.installed(run.network.module) if self.apart and memory.masked else nullcontext():
            return run.proceed()

    def around_conds(self, call: CondBatch) -> Any:
        """Note what the conditionings are, which part of the image they cover, and whose they are."""
        memory: RunMemory | None = call.options.get(RUN)
        if memory is not None:
            for number, conds in call.numbered:
                memory.note(number, conds)
        return call.proceed()

    def around_step(self, call: DenoiserCall) -> Tensor:
        """Decide once a call which images act, and where.

        Raises:
            ValueError: a masked image meets a call for a part of the image that is not known.
        """
        active = [i for i, each in enumerate(self.references) if each.schedule.acts(call)]
        if not active:
            return call.proceed()
        memory = call.options.get(RUN)
        alone = memory is None
        if alone:
            memory = RunMemory(self.kept, call.size, tuple(each.mask for each in self.references))
        step = memory.step(call.conditioning_ids, active, call.size, call.x.device)
        apart = self.apart and memory.masked
        with (
            self.norms.installed(call.module) if apart and alone else nullcontext(),
            self.norms.acting(_shares(step) if apart else None),
        ):
            if self.kept.layers[0].in_sd3:
                return self._in_blocks(call, step, memory.timed_on(call.x.device))
            return call.proceed_with(self._with_images(call.options, step))

    def _in_blocks(self, call: DenoiserCall, step: Step, groups: list[TimedGroup]) -> Tensor:
        given = (call.module, self.kept.layers, step, groups, call.timestep, self.attention, call.options.get(RECORD))
        with images_in_blocks(*given):
            return call.proceed()

    def _with_images(self, options: Options, step: Step) -> Options:
        layers = [layer for layer in self.kept.layers if layer.number in step.groups]
        if layers[0].in_flux:
            return with_images_in_flux(options, layers, step)
        patches = {
            layer.key: lambda previous, at=layer: ImageAttention(at, step, self.attention, previous) for layer in layers
        }
        return with_cross_attention(options, patches)


def _shares(step: Step) -> SharesAt | None:
    """Return the shares of the areas of images that act; on the usual grids, before the network runs."""
    rows = [(each, sorted(each.masks.masked & step.active) if each.masks else []) for each in step.rows]
    if not any(masked for _, masked in rows):
        return None

    def at(grid: Grid) -> list[Tensor | None]:
        return [shares_of(each.masks.rows(grid, n)) if each.masks and n else None for each, n in rows]

    known = {grid: at(grid) for grid in halvings(step.size)}

    def shares(grid: Grid, batch: int) -> list[tuple[slice, Tensor | None]]:
        size = batch // step.conditionings
        spans = [slice(each.first * size, each.stop * size) for each, _ in rows]
        return list(zip(spans, known[grid] if grid in known else at(grid), strict=True))

    return shares


def install(
    model: Any,
    references: Sequence[ActiveReference],
    attention: Attention,
    layers: list[Layer],
    apart: bool = False,
    manage: Manage | None = None,
) -> Any:
    """Return a clone of a host's MODEL on which the images act, together with those that acted before.

    Args:
        model: the MODEL; it stays as it is.
        references: the images.
        attention: the host's `optimized_attention`.
        layers: the cross-attention layers of its network.
        apart: whether group norms normalise the masked areas one by one.
        manage: puts what is kept on the device under the host's memory management.
    """
    earlier: ImagePromptHooks | None = installed(model, KEY)
    every = (*images_in(model), *references)
    acting = [layer for layer in layers if any(each.acts_at(layer.number) for each in every)]
    kept = KeptImages(every, acting, place_of(model)[1], manage)
    hooks = ImagePromptHooks(kept, attention, apart or (earlier is not None and earlier.apart))
    around = {SamplingRun: hooks.around_run, CondBatch: hooks.around_conds, DenoiserCall: hooks.around_step}
    clone = install_hooks(model, KEY, hooks, around)
    if manage is not None:
        keep_resident(clone, KEY, lambda: kept.models)
    return clone


def images_in(model: Any) -> tuple[ActiveReference, ...]:
    """Return the images that act in a host's MODEL."""
    hooks: ImagePromptHooks | None = installed(model, KEY)
    return tuple(hooks.references) if hooks else ()
