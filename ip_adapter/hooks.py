"""Image prompts in a MODEL: patches at its cross-attentions, and wrappers that say what acts at each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .areas import split
from .attend import Bank, add_images, make_banks, only
from .bank import Reference
from .maps import RECORD, Record
from .masks import check_aspect, pool
from .presets import Gains, gain_at
from .sites import Site, find_sites

KEY = "tessera_image_prompts"
RUN, STEP = "tessera_image_prompts_run", "tessera_image_prompts_step"
CONDITIONAL = {"positive", "middle"}
"""Names of a guider's conditionings that see the images; all others see the unconditional tokens."""

Attention = Callable[..., Tensor]
Areas = tuple[Tensor | None, list[tuple[Tensor, list[int]]] | None]


@dataclass(frozen=True, eq=False)
class Use:
    """An image at work.

    Args:
        reference: its keys and values.
        scale: 0..1.
        gains: weights of the blocks.
        start: fraction of the schedule at which it begins to act.
        end: fraction of the schedule at which it ceases to.
        mask: where it acts (H, W) in 0..1; None for everywhere.
    """

    reference: Reference
    scale: float
    gains: Gains
    start: float = 0.0
    end: float = 1.0
    mask: Tensor | None = None

    def weight(self, site: Site) -> float:
        """How strongly it acts at a cross-attention."""
        return self.scale * gain_at(self.gains, site)

    def acts(self, sigma: float, percent_to_sigma: Callable[[float], float]) -> bool:
        """Whether it acts at a noise level."""
        return percent_to_sigma(self.end) <= sigma <= percent_to_sigma(self.start)

    @property
    def always(self) -> bool:
        """Whether it acts at every step; asking for sigma would make a GPU wait."""
        return (self.start, self.end) == (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Stack:
    """Images that are combined: one of `attend.COMBINES`."""

    uses: tuple[Use, ...]
    combine: str


class Entry(NamedTuple):
    """Images under one attention: their bank, their masks (n, L), their numbers.

    Where they act on P pixels only, these have numbers, too, and the masks are (n, P).
    """

    bank: Bank
    mask: Tensor | None
    images: list[int]
    pixels: Tensor | None = None


@dataclass(eq=False)
class Run:
    """What is kept from the first step of a run to its last.

    Args:
        size: of the latents (height, width).
        names: uuid of a conditioning -> its name in the guider.
        banks: keys and values on the device, by site, images that act, and rows.
        areas: masks on a grid, and how the picture is divided by them.
    """

    size: tuple[int, int] | None = None
    names: dict[Any, str] = field(default_factory=dict)
    banks: dict[Any, list[Entry]] = field(default_factory=dict)
    areas: dict[Any, Areas] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Step:
    """What one call of the model needs to know.

    Args:
        run: its run.
        stacks: all images.
        active: the numbers of those that act.
        roles: for each conditioning in the batch 0 (sees the images) or 1 (sees the unconditional tokens).
    """

    run: Run
    stacks: tuple[Stack, ...]
    active: tuple[int, ...]
    roles: tuple[int, ...]

    def entries(self, site: Site, q: Tensor, heads: int, grid: tuple[int, int], divided: bool = True) -> list[Entry]:
        """The images at a site, from the run's memory; `divided` by the areas where they act, if that is cheaper."""
        key = (site.number, self.active, self.roles, q.shape[0], grid, q.dtype, q.device, divided)
        if key not in self.run.banks:
            first, found = 0, []
            for stack in self.stacks:
                numbers = [n for n in range(first, first + len(stack.uses)) if n in self.active]
                uses = {n: stack.uses[n - first] for n in numbers if stack.uses[n - first].weight(site)}
                if uses:
                    for entry in _load(uses, stack.combine, site, self.roles, q, heads):
                        found += self._placed(entry, uses, stack.combine, grid, q, divided)
                first += len(stack.uses)
            self.run.banks[key] = found
        return self.run.banks[key]

    def _placed(
        self, entry: Entry, uses: dict[int, Use], combine: str, grid: tuple[int, int], q: Tensor, divided: bool
    ) -> list[Entry]:
        """The same with masks, one for each area."""
        tokens = entry.bank.keys.shape[2] // len(entry.images)
        key = (grid, tuple(entry.images), combine, tokens, q.shape[-1], divided)
        if key not in self.run.areas:
            mask = pool([uses[image].mask for image in entry.images], grid)
            # More calls are cheaper than more products on a CPU alone.
            areas = _areas(mask, combine, tokens, q.shape[-1]) if divided and q.device.type == "cpu" else None
            self.run.areas[key] = None if mask is None else mask.to(q), areas
        mask, areas = self.run.areas[key]
        if mask is None or areas is None:
            return [entry._replace(mask=mask)]
        return [
            Entry(only(entry.bank, images), mask[images][:, pixels], [entry.images[i] for i in images], pixels)
            for pixels, images in areas
        ]


def _areas(mask: Tensor | None, combine: str, tokens: int, channels: int) -> list[tuple[Tensor, list[int]]] | None:
    if mask is None:
        return None
    if combine != "concat":
        return split(mask, tokens, channels)
    # Images that do not act somewhere compete there all the same.
    found = split(mask.amax(dim=0, keepdim=True), tokens * len(mask), channels)
    return found and [(pixels, list(range(len(mask)))) for pixels, _ in found]


def _load(uses: dict[int, Use], combine: str, site: Site, roles: tuple[int, ...], q: Tensor, heads: int) -> list[Entry]:
    numbers, images = list(uses), list(uses.values())
    rows = torch.tensor(roles, device=q.device).repeat_interleave(q.shape[0] // len(roles))
    pairs = [use.reference.pairs[site.number] for use in images]
    keys, values = ([pair[part].to(q)[rows] for pair in pairs] for part in (0, 1))
    banks = make_banks(keys, values, [use.weight(site) for use in images], heads, combine)
    return [Entry(bank, None, [numbers[i] for i in group]) for bank, group in banks]


class ImageAttention:
    """Stands under one attn2 key: what was there before, plus the images. Nothing is kept between calls.

    Args:
        site: which cross-attention it is.
        attention: the host's `optimized_attention`.
        previous: what was installed there.
    """

    def __init__(self, site: Site, attention: Attention, previous: Callable[..., Tensor] | None) -> None:
        self.site, self.attention, self.previous = site, attention, previous

    def __deepcopy__(self, memo: dict[int, Any]) -> ImageAttention:
        return self

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        """q (B, L, C), k and v of the text (B, M, C) -> (B, L, C), before the output projection."""
        if self.previous is not None:
            # Another pack may have wrapped an object of this class: the outermost acts. What it returns is its own.
            out = self.previous(q, k, v, {name: value for name, value in extra.items() if name != STEP}).clone()
        else:
            precision = extra.get("attn_precision")
            out = self.attention(q, k, v, extra["n_heads"], attn_precision=precision, transformer_options=extra)
        step: Step | None = extra.get(STEP)
        if step is None or not step.active:
            return out
        height, width = extra["activations_shape"][-2:]
        record: Record | None = extra.get(RECORD)
        entries = step.entries(self.site, q, extra["n_heads"], (height, width), divided=record is None)
        if record is not None:
            for bank, mask, images, _ in entries:
                record.add(out, q, bank, mask, images, (height, width))
        for bank, mask, _, pixels in entries:
            add_images(out, q, bank, mask, pixels)
        return out


@dataclass(frozen=True, eq=False)
class Hooks:
    """The wrappers, for a host's OUTER_SAMPLE and APPLY_MODEL."""

    stacks: tuple[Stack, ...]

    @property
    def uses(self) -> list[Use]:
        """All images of all stacks."""
        return [use for stack in self.stacks for use in stack.uses]

    def around_run(self, executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """OUTER_SAMPLE: check the masks against the latents (B, C, H, W), and note what the steps need.

        Raises:
            ValueError: a mask has another aspect than the picture.
        """
        guider = executor.class_obj
        size = (noise.shape[-2], noise.shape[-1])
        for use in self.uses:
            if use.mask is not None:
                check_aspect(use.mask, size)
        names = {cond["uuid"]: name for name, conds in guider.conds.items() for cond in conds or () if "uuid" in cond}
        guider.model_options["transformer_options"][RUN] = Run(size, names)
        return executor(noise, *args, **kwargs)

    def around_step(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None,
        c_crossattn: Tensor | None,
        control: Any,
        transformer_options: dict[str, Any],
        **kwargs: Any,
    ) -> Tensor:
        """APPLY_MODEL: decide once which images act. x: (B, C, H, W); t: (B,) sigmas.

        Raises:
            ValueError: a masked image meets a conditioning that covers a part of the picture.
        """
        run = transformer_options.get(RUN) or Run()
        size = (x.shape[-2], x.shape[-1])
        if run.size not in (None, size) and any(use.mask is not None for use in self.uses):
            raise ValueError(
                "Image prompts with masks do not go together with conditionings that cover a part of the picture; "
                "take the areas away, or use masks on the conditionings."
            )
        active = self._active(t, executor.class_obj.model_sampling.percent_to_sigma)
        step = Step(run, self.stacks, active, self._roles(run, transformer_options))
        return executor(x, t, c_concat, c_crossattn, control, {**transformer_options, STEP: step}, **kwargs)

    def _active(self, t: Tensor, percent_to_sigma: Callable[[float], float]) -> tuple[int, ...]:
        uses = self.uses
        if all(use.always for use in uses):
            return tuple(range(len(uses)))
        sigma = float(t.max())
        return tuple(i for i, use in enumerate(uses) if use.always or use.acts(sigma, percent_to_sigma))

    @staticmethod
    def _roles(run: Run, options: dict[str, Any]) -> tuple[int, ...]:
        """By the conditionings' names; where a host does not tell them, the second of them is the negative one."""
        numbers = options.get("cond_or_uncond") or [0]
        names = [run.names.get(each) for each in options.get("uuids") or [None] * len(numbers)]
        return tuple(
            int(number == 1) if name is None else int(name not in CONDITIONAL)
            for number, name in zip(numbers, names, strict=True)
        )


def install(model: Any, stack: Stack, attention: Attention, outer_sample: str, apply_model: str) -> Any:
    """Return a clone of a host's MODEL on which the images act, together with those that acted before.

    Args:
        model: the MODEL; it stays as it is.
        stack: the images.
        attention: the host's `optimized_attention`.
        outer_sample: the host's name of this kind of wrapper.
        apply_model: the host's name of this kind of wrapper.
    """
    earlier = model.get_wrappers(apply_model, KEY)
    before: tuple[Stack, ...] = earlier[0].__self__.stacks if earlier else ()
    hooks = Hooks(_merge(before, stack))
    clone = model.clone()
    for kind, wrapper in ((outer_sample, hooks.around_run), (apply_model, hooks.around_step)):
        clone.remove_wrappers_with_key(kind, KEY)
        clone.add_wrapper_with_key(kind, KEY, wrapper)
    installed = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for site in find_sites(model.get_model_object("diffusion_model")):
        previous = installed.get(site.key, installed.get(site.key[:2]))
        if any(use.weight(site) for use in hooks.uses) and not isinstance(previous, ImageAttention):
            clone.set_model_attn2_replace(ImageAttention(site, attention, previous), *site.key)
    return clone


def _merge(before: tuple[Stack, ...], stack: Stack) -> tuple[Stack, ...]:
    """Images that are combined in the same way are combined with each other."""
    same = next((each for each in before if each.combine == stack.combine), None)
    if same is None:
        return (*before, stack)
    return tuple(Stack(s.uses + stack.uses, s.combine) if s is same else s for s in before)
