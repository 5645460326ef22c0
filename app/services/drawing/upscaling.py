"""The size of a texture that is enlarged and sampled again: its own, times a factor, as far as its model repeats it."""

from __future__ import annotations

from ....host.errors import GraphError
from ..bodies.images import MAX_PIXELS
from .finishing import Size, whole_scale
from .geometry import whole
from .recipe import Recipe

MAX_SIDE = 16384
"""Longest side in px that ComfyUI's nodes scale to."""
NEAR = 0.05
"""Part by which a scale may differ from the one that is asked for before the texture itself is resized."""


def size(recipe: Recipe, found: Size, unit: int) -> None:
    """Set the size of a recipe's result, whose sides are multiples of `unit` px, and that of its first image.

    Args:
        found: (width, height) of the first image in px.

    Raises:
        GraphError: the result would be larger than the nodes take.
    """
    offered: list[Size] = [found, (whole(found[0], unit), whole(found[1], unit))]
    scales = [whole_scale(each, recipe.upscale, unit)[0] for each in offered]
    kept, fitted = (float(abs(scale / recipe.upscale - 1)) for scale in scales)
    taken = int(kept > NEAR and fitted < kept)
    recipe.unit, recipe.source, scale = unit, offered[taken], scales[taken]
    recipe.resized = recipe.source != found
    if recipe.resized:
        recipe.remarks["image"] = f"scaled to {recipe.source[0]} x {recipe.source[1]} px first, multiples of {unit}"
    width, height = recipe.size = int(recipe.source[0] * scale), int(recipe.source[1] * scale)
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        most = f"at most {MAX_PIXELS} px, and {MAX_SIDE} px on a side"
        raise GraphError([f"image: found {found[0]} x {found[1]} px, in the end {width} x {height}; expected {most}"])
