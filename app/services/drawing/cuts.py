"""What the cut to the result's proportions leaves of a request's images, which is known before the run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ....host.errors import GraphError
from ....host.images.loading import load_image
from ....host.images.scaling import crop_to_aspect, resize
from ..bodies.parameters import NO_EFFECT
from .geometry import margins
from .recipe import Recipe

Size = tuple[int, int]

PROMPT_ROLES = ("image prompt", "image prompt adapter", "mask of image prompt", "image prompt image")


@dataclass
class Cuts:
    """The images of one request, cut as the workflow cuts them.

    Attributes:
        contents: bytes of images by their file names.
        parameters: a parameter that holds the image, by file name.
    """

    contents: Mapping[str, bytes]
    parameters: Mapping[str, str]
    _red: dict[str, Tensor] = field(default_factory=dict)
    _black: dict[tuple[str, Size], bool] = field(default_factory=dict)

    def check(self, recipe: Recipe) -> None:
        """Say which masks are black, and leave out image prompts with such a mask, which would act nowhere.

        Raises:
            GraphError: nothing is left of an image.
        """
        masks = {each for each in (recipe.mask, *(each.mask for each in recipe.image_prompts)) if each}
        for file, size in _places(recipe):
            self._cut(file, size)
        black = {file for file in masks if self._is_black(file, recipe.size)}
        width, height = recipe.size
        where = f"it is black where the result of {width} x {height} px shows it, cut around its center"
        kept = [each for each in recipe.image_prompts if each.mask not in black]
        if kept != recipe.image_prompts:
            recipe.remarks["mask of image prompt"] = f"{where}, so the image acts nowhere"
        if recipe.image_prompts and not kept:
            why = f"left out: its mask acts nowhere, {where}; send one with white there"
            recipe.missing |= dict.fromkeys(PROMPT_ROLES, (NO_EFFECT, why))
        recipe.image_prompts = kept
        if recipe.mask in black and not recipe.unzoom:
            recipe.remarks["mask"] = f"{where}, so nothing is painted"

    def size_of(self, file: str) -> Size:
        """Return the size (width, height) in px of an image.

        Raises:
            GraphError: it was not read.
        """
        if file not in self.contents:
            raise GraphError([f"{file}: an image that was not read, whose size is that of the result; send it"])
        if file not in self._red:
            self._red[file] = _opened(self.contents[file])
        height, width = self._red[file].shape[-2:]
        return width, height

    def _cut(self, file: str, size: Size) -> Tensor | None:
        """Return the red of what is left of an image, (1, 1, H, W); None where the image was not read."""
        if file not in self.contents:
            return None
        if file not in self._red:
            self._red[file] = _opened(self.contents[file])
        red = crop_to_aspect(self._red[file], size[0] / size[1])
        if not red.numel():
            height, width = self._red[file].shape[-2:]
            found = f"{self.parameters[file]}: found an image of {width} x {height} px"
            left = f"of which nothing is left in the proportions of {size[0]} x {size[1]} px"
            raise GraphError([f"{found}, {left}; send one that is nearer to them"])
        return red

    def _is_black(self, file: str, size: Size) -> bool:
        if (file, size) not in self._black:
            red = self._cut(file, size)
            if red is not None and red.any() and (red.shape[-1] > size[0] or red.shape[-2] > size[1]):
                # Scaling down skips pixels.
                red = resize(red.movedim(1, -1), *size, "bilinear")
            self._black[file, size] = red is not None and not (red > 0).any()
        return self._black[file, size]


def _places(recipe: Recipe) -> Iterator[tuple[str, Size]]:
    """Return the files that are cut, with the size (width, height) in px that each fills."""
    across, down = margins(recipe.size, recipe.unzoom)
    inner = recipe.size[0] - 2 * across, recipe.size[1] - 2 * down
    if recipe.init_image:
        yield recipe.init_image, inner
    for each in recipe.guides:
        yield each.file, inner if each.file == recipe.init_image else recipe.size
    if recipe.mask:
        yield recipe.mask, recipe.size
    yield from ((each.mask, recipe.size) for each in recipe.image_prompts if each.mask)


def _opened(content: bytes) -> Tensor:
    """Return the red of an image, (1, 1, H, W), as the workflow loads it."""
    number, name = tempfile.mkstemp()
    path = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
        return load_image(path)[0][None, :1, ..., 0].contiguous()
    finally:
        path.unlink()
