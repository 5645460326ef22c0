"""Image prompts in a MODEL: patches at its cross-attentions, and wrappers that say what acts at each step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .flux import install_in_flux
from .maps import RECORD
from .masks import UNITS, fit
from .norms import norms_apart
from .sites import Site, find_sites
from .steps import STEP, Patch, Run, Stack, Step, Use

KEY = "tessera_image_prompts"
RUN = "tessera_image_prompts_run"
CONDITIONAL = {"positive", "middle"}
"""Names of a guider's conditionings that see the images; all others see the unconditional tokens."""

Attention = Callable[..., Tensor]


class ImageAttention(Patch):
    """Stands under one attn2 key: what was there before, plus the images. Nothing is kept between calls.

    Args:
        site: which cross-attention it is.
        attention: the host's `optimized_attention`.
        previous: what was installed there.
    """

    def __init__(self, site: Site, attention: Attention, previous: Callable[..., Tensor] | None) -> None:
        self.site, self.attention, self.previous = site, attention, previous

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
        return step.add(out, q, self.site, extra["n_heads"], (height, width), extra.get(RECORD))


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
        unit = _unit(guider)
        masks = {i: fit(use.mask, size, unit) for i, use in enumerate(self.uses) if use.mask is not None}
        names = {cond["uuid"]: name for name, conds in guider.conds.items() for cond in conds or () if "uuid" in cond}
        guider.model_options["transformer_options"][RUN] = Run(size, names, masks)
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
        step = Step(run, self.stacks, active, self._roles(run, transformer_options), size)
        with self._norms(executor.class_obj.diffusion_model, active, run):
            return executor(x, t, c_concat, c_crossattn, control, {**transformer_options, STEP: step}, **kwargs)

    def _norms(self, network: Any, active: tuple[int, ...], run: Run) -> AbstractContextManager[None]:
        """Group norms by area, where that is asked for and two areas are there."""
        found = [run.mask_of(i, use) for i, use in enumerate(self.uses) if i in active]
        masks = [mask for mask in found if mask is not None]
        apart = any(stack.apart for stack in self.stacks)
        return norms_apart(network, masks) if apart and masks else nullcontext()

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


def _unit(guider: Any) -> int:
    """Pixels along a side of one of a model's latents, as the host's latent format says; 8 where it does not."""
    model = getattr(getattr(guider, "model_patcher", None), "model", None)
    unit = getattr(getattr(model, "latent_format", None), "spacial_downscale_ratio", UNITS[0])
    return unit if isinstance(unit, int) and unit > 0 else UNITS[0]


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
    sites = [s for s in find_sites(model.get_model_object("diffusion_model")) if any(u.weight(s) for u in hooks.uses)]
    if sites and sites[0].in_flux:
        install_in_flux(clone, sites)
    else:
        _install_in_unet(clone, sites, attention)
    return clone


def _install_in_unet(clone: Any, sites: list[Site], attention: Attention) -> None:
    installed = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for site in sites:
        previous = installed.get(site.key, installed.get(site.key[:2]))
        if not isinstance(previous, ImageAttention):
            clone.set_model_attn2_replace(ImageAttention(site, attention, previous), *site.key)


def _merge(before: tuple[Stack, ...], stack: Stack) -> tuple[Stack, ...]:
    """Images that are combined in the same way are combined with each other."""
    same = next((each for each in before if each.combine == stack.combine), None)
    if same is None:
        return (*before, stack)
    apart = stack.apart or same.apart
    return tuple(Stack(s.uses + stack.uses, s.combine, apart) if s is same else s for s in before)
