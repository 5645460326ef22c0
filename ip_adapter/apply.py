"""Image prompts on a MODEL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .hooks import Attention, Stack, install
from .prompts import ImagePrompt, LoadedAdapter, check_count, use
from .sites import find_sites


def apply_prompts(
    model: Any,
    loaded: LoadedAdapter | None,
    prompts: Sequence[ImagePrompt],
    combine: str,
    attention: Attention,
    wrappers: tuple[str, str],
    apart: bool = False,
) -> Any:
    """Return a clone of a host's MODEL that sees the images, or the model itself when none of them acts anywhere.

    Args:
        model: the MODEL; it stays as it is.
        loaded: needed for pictures; baked references do without.
        prompts: the images.
        combine: one of `attend.COMBINES`.
        attention: the host's `optimized_attention`.
        wrappers: the host's names of the OUTER_SAMPLE and APPLY_MODEL wrappers.
        apart: whether group norms level the masked areas one by one.

    Raises:
        ValueError: something does not go together; the message says what.
    """
    check_count(prompts)
    sites = find_sites(model.get_model_object("diffusion_model"))
    if apart and sites and sites[0].in_flux:
        raise ValueError("keep_apart is for UNets: it changes group norms, which this model has not; switch it off.")
    uses = tuple(each for each in (use(prompt, loaded, sites) for prompt in prompts) if each is not None)
    return install(model, Stack(uses, combine, apart), attention, *wrappers) if uses else model
