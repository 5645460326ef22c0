"""Image prompts in Flux as XLabs trained them.

The picture's queries of a double block attend to the images, before they are turned by their positions; what the images
say is added to the picture's tokens behind the block.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .maps import RECORD
from .sites import DOUBLE, Site
from .steps import STEP, Patch, Step

PATCH = 2
"""Latents along a side of one token."""

Options = dict[str, Any]


class NoteQueries(Patch):
    """An `attn1_patch` that keeps the picture's queries until the end of their block, and changes nothing."""

    def __call__(self, q: Tensor, *_: Any, extra_options: Options, **__: Any) -> Options:
        """q: (B, H, L, d), text first."""
        step: Step | None = extra_options.get(STEP)
        if step is not None and step.active and extra_options.get("block_type") == "double":
            step.queries[extra_options["block_index"]] = q[:, :, extra_options["img_slice"][0] :]
        return {}


class ImageBlock(Patch):
    """Stands for one double block: what was there before, plus the images. Nothing is kept between calls.

    Args:
        site: which block it is.
        previous: what was installed there.
    """

    def __init__(self, site: Site, previous: Any) -> None:
        self.site, self.previous = site, previous

    def __call__(self, args: Options, extra: Options) -> Options:
        """args: the block's, with img (B, N, C) and txt; to the same two."""
        out = extra["original_block"](args) if self.previous is None else self.previous(args, extra)
        options = args["transformer_options"]
        step: Step | None = options.get(STEP)
        # An object of this class under another pack's wrapper has taken the queries: the innermost acts.
        q = None if step is None else step.queries.pop(self.site.number, None)
        if step is None or q is None:
            return out
        height, width = (-(-side // PATCH) for side in step.size)
        # Tokens behind those of the picture belong to pictures that are given along with it.
        tokens = out["img"][:, : height * width]
        seen = q[:, :, : height * width].transpose(1, 2).flatten(2)
        step.add(tokens, seen, self.site, self.site.heads, (height, width), options.get(RECORD))
        return out


def install_in_flux(clone: Any, sites: list[Site]) -> None:
    """Put the patches into a clone of a host's MODEL, once."""
    options = clone.model_options["transformer_options"]
    if not any(isinstance(patch, NoteQueries) for patch in options.get("patches", {}).get("attn1_patch", ())):
        clone.set_model_patch(NoteQueries(), "attn1_patch")
    for site in sites:
        installed = clone.model_options["transformer_options"].get("patches_replace", {}).get("dit", {})
        previous = installed.get((DOUBLE, site.number))
        if not isinstance(previous, ImageBlock):
            clone.set_model_patch_replace(ImageBlock(site, previous), "dit", DOUBLE, site.number)
