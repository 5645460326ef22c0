"""One geometry for all images of a request: each is cut to the proportions of the result, around its center."""

from __future__ import annotations

from ..bodies.parameters import APPROXIMATED
from .graph_layout import LaidOutGraph, Output
from .recipe import Recipe

MULTIPLE = 8
"""Margins are multiples of it, in px."""


def margins(size: tuple[int, int], unzoom: float) -> tuple[int, int]:
    """Return the margins (left and right, top and bottom) in px of an image that is unzoomed to `size`.

    Args:
        size: (width, height) of the image with its margins, in px.
        unzoom: the margins as a part of the image without them.
    """
    across, down = (int(side * unzoom / (1 + unzoom) / (2 * MULTIPLE)) * MULTIPLE for side in size)
    return across, down


def whole(side: float, unit: int) -> int:
    """Return the multiple of `unit` that is nearest to a side, both in px, but not 0."""
    return max(1, round(side / unit)) * unit


def repeat(recipe: Recipe, unit: int) -> None:
    """Make the sides of a texture that repeat multiples of what its model asks for, and say so."""
    along = {"": (), "both": ("width", "height"), "horizontal": ("width",)}[recipe.tiling]
    sides = dict(zip(("width", "height"), recipe.size, strict=True))
    for name in along:
        side = whole(sides[name], unit)
        if side != sides[name]:
            recipe.notes[name] = (APPROXIMATED, f"{side} is used: with this model, multiples of {unit} px repeat")
        sides[name] = side
    recipe.size = sides["width"], sides["height"]


def tell_margins(recipe: Recipe) -> None:
    """Say what an unzoomed image and its margin have of the size."""
    if recipe.unzoom:
        around = margins(recipe.size, recipe.unzoom)
        for name, side, margin in zip(("width", "height"), recipe.size, around, strict=True):
            image = side - 2 * margin
            recipe.remarks[name] = f"{side} px are those of the image, {image}, and of its margin, twice {margin}"


def fitted(graph: LaidOutGraph, role: str, image: Output, size: tuple[int, int], method: str = "lanczos") -> Output:
    """Scale an image to `size` (width, height) in px, and cut off what sticks out on both sides."""
    width, height = size
    fit = {"upscale_method": method, "width": width, "height": height, "crop": "center"}
    return graph.add(role, "ImageScale", image=image, **fit)[0]


def placed(
    graph: LaidOutGraph, roles: tuple[str, str, str], file: str, size: tuple[int, int], unzoom: float
) -> tuple[Output, Output | None]:
    """Load an image and place it in `size`, with a margin where it is unzoomed.

    Args:
        roles: of the nodes that load, scale and pad.

    Returns:
        The image, and the mask of its margin.
    """
    load, scale, pad = roles
    image = graph.add(load, "LoadImage", image=file)[0]
    across, down = margins(size, unzoom)
    pixels = fitted(graph, scale, image, (size[0] - 2 * across, size[1] - 2 * down))
    if not unzoom:
        return pixels, None
    around = {"left": across, "top": down, "right": across, "bottom": down}
    padded = graph.add(pad, "ImagePadForOutpaint", image=pixels, **around)
    return padded[0], padded[1]


def mask(graph: LaidOutGraph, role: str, file: str, size: tuple[int, int]) -> Output:
    """Load a mask, white where it acts, and fit it as the image that it belongs to."""
    image = graph.add(role, "LoadImage", image=file)[0]
    image = fitted(graph, f"{role} size", image, size, "bilinear")
    return graph.add(f"{role} channel", "ImageToMask", image=image, channel="red")[0]
