"""Where images act: masks, averaged to the grid of each attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from .areas import Part
from .attend import Patches, take

Grid = tuple[int, int]
"""(height, width)"""

Region = tuple[int, int, int, int]
"""(height, width, top, left) in latents: the part of an image that a conditioning covers."""

MaskedPart = tuple[Part | Patches, Tensor | None]
"""An area, and the masks (n, P) there; of patches (P,), None where they are 1."""

TOLERANCE = 0.05
"""Relative difference of aspect up to which a mask and an image count as the same shape."""

UNITS = (8, 16)
"""Pixels along a side of one latent: of most VAEs, and of those that compress more."""


def one_mask(mask: Tensor) -> Tensor:
    """Return the one mask (H, W) in 0..1 of a host's MASK, (H, W) or (1, H, W).

    Raises:
        ValueError: the mask is a batch, or nowhere above 0, or not finite.
    """
    plane = mask.float().reshape(-1, *mask.shape[-2:])
    if plane.shape[0] != 1:
        raise ValueError(f"The mask is a batch of {plane.shape[0]}; an image takes one mask, select one of them.")
    if not torch.isfinite(plane).all():
        raise ValueError("The mask has values that are not finite; expected 0 to 1.")
    if not (plane > 0).any():
        raise ValueError(
            "The mask is black everywhere, so the image would act nowhere; paint where it should act white, or remove "
            "the mask (Load Image gives a black mask for images without transparency)."
        )
    return plane[0].clamp(0, 1)


def masks_for(mask: Tensor | None, count: int) -> list[Tensor | None]:
    """Return a mask (H, W) for each of some images: one for all, or as many as there are images.

    Raises:
        ValueError: there is another number of masks, or one cannot be used (see `one_mask`).
    """
    if mask is None or mask.ndim < 3 or mask.shape[0] == 1:
        return [None if mask is None else one_mask(mask)] * count
    if mask.ndim != 3 or mask.shape[0] != count:
        images = f"{count} image{'s' if count > 1 else ''}"
        raise ValueError(
            f"There are {mask.shape[0]} masks for {images}; connect one mask for all, or one for each image."
        )
    return [one_mask(each) for each in mask]


def fit(mask: Tensor, size: tuple[int, int], unit: int = UNITS[0], whose: str = "") -> Tensor:
    """Crop a mask (H, W) to the part of its image that latents (height, width) cover.

    Encoding crops an image to whole latents, at the middle (ComfyUI's `VAE.vae_encode_crop_pixels`); a mask of the
    uncropped image is cropped in the same way, also when the latents have been upscaled since. Other masks cover the
    same as the latents, in any resolution.

    Args:
        mask: the mask.
        size: of the latents.
        unit: pixels along a side of one latent of the model; `UNITS` are tried, too.
        whose: mask it is, for the message.

    Raises:
        ValueError: the mask has another aspect.
    """
    (h, w), (height, width) = mask.shape, size
    near = abs(h * width - w * height) <= TOLERANCE * w * height
    for each in (unit, *UNITS):
        rows, columns = h // each, w // each
        same = each == unit and (rows, columns) == (height, width)
        # A mask of about the right shape covers the whole image, unless it has exactly the uncropped size.
        if same or (not near and rows and columns and rows * width == columns * height):
            return _middle(mask, rows * each, columns * each)
    if near:
        return mask
    raise ValueError(
        f"The mask{whose} is {w} x {h}, but the image is {width * unit} x {height * unit}; use a mask of the "
        "image's shape, in any resolution."
    )


def _middle(mask: Tensor, height: int, width: int) -> Tensor:
    top, left = (mask.shape[0] - height) // 2, (mask.shape[1] - width) // 2
    return mask[top : top + height, left : left + width]


def halvings(size: Grid, levels: int = 5) -> list[Grid]:
    """Return the grids of the levels of a UNet over latents of a size; each halves, rounding up."""
    found = [size]
    for _ in range(levels - 1):
        found.append((-(-found[-1][0] // 2), -(-found[-1][1] // 2)))
    return found


def cut(mask: Tensor, size: Grid, region: Region) -> Tensor:
    """Return the part of a mask (H, W) that covers a region of latents (height, width)."""
    (h, w), (height, width) = mask.shape, size
    if h % height or w % width:
        mask, h, w = _area(mask, size)[0], height, width
    down, across = h // height, w // width
    rows, columns, top, left = region
    return mask[top * down : (top + rows) * down, left * across : (left + columns) * across]


class MasksOnGrids:
    """Masks of all images in one part of an image, on the grids of its attentions.

    Grids are added before a network runs, so that it only reads them; one that comes as a surprise is averaged anew.

    Args:
        masks: of each image (H, W), on the device; None for images that act everywhere.
        dtype: of the queries.
    """

    def __init__(self, masks: Sequence[Tensor | None], dtype: torch.dtype) -> None:
        self.masks, self.dtype = list(masks), dtype
        self.masked = frozenset(i for i, mask in enumerate(masks) if mask is not None)
        self._grids: dict[Grid, Tensor] = {}
        self._parts: dict[tuple[Grid, tuple[int, ...], tuple[str, int, int]], list[MaskedPart]] = {}

    def acts(self, images: Sequence[int]) -> bool:
        """Return whether one of the images has a mask."""
        return not self.masked.isdisjoint(images)

    def add_grid(self, grid: Grid) -> None:
        """Average the masks to a grid."""
        if grid not in self._grids:
            self._grids[grid] = self._pooled(grid)

    def add_parts(
        self,
        grid: Grid,
        images: tuple[int, ...],
        kind: tuple[str, int, int],
        divide: Callable[[Tensor], list[Part]],
    ) -> None:
        """Divide a grid into areas where some of the images act; see `parts`."""
        key = (grid, images, kind)
        if key not in self._parts:
            mask = self.rows(grid, images)
            self._parts[key] = _masked(divide(mask), mask, together=kind[0] == "sum")

    def parts(self, grid: Grid, images: tuple[int, ...], kind: tuple[str, int, int]) -> list[MaskedPart]:
        """Return the areas of a grid, whose images are numbered within `images`, with the masks there."""
        found = self._parts.get((grid, images, kind))
        return [((None, list(range(len(images)))), self.rows(grid, images))] if found is None else found

    def rows(self, grid: Grid, images: Sequence[int]) -> Tensor:
        """Return the masks of some images (n, h * w)."""
        found = self._grids.get(grid)
        return take(self._pooled(grid) if found is None else found, 0, images)

    def _pooled(self, grid: Grid) -> Tensor:
        pooled = pool(self.masks, grid)
        assert pooled is not None
        return pooled.to(self.dtype)


def _masked(parts: Sequence[Part], mask: Tensor, together: bool) -> list[MaskedPart]:
    """Give areas their masks (n, P); `together`: areas of single images are joined to patches."""
    own = [(pixels, images[0]) for pixels, images in parts if together and pixels is not None and len(images) == 1]
    found: list[MaskedPart] = [
        ((pixels, images), take(mask, 0, images) if pixels is None else take(mask, 0, images)[:, pixels])
        for pixels, images in parts
        if not (together and pixels is not None and len(images) == 1)
    ]
    if not own:
        return found
    ends = (0, *accumulate(len(pixels) for pixels, _ in own))
    patches = Patches(torch.cat([pixels for pixels, _ in own]), tuple(image for _, image in own), ends)
    there = torch.cat([mask[image, pixels] for pixels, image in own])
    return [(patches, None if bool((there == 1).all()) else there), *found]


def pool(masks: list[Tensor | None], grid: tuple[int, int]) -> Tensor | None:
    """Average masks (H, W) over the cells of a grid (h, w): (n, h * w), or None when no image has one."""
    if all(mask is None for mask in masks):
        return None
    device = next(mask.device for mask in masks if mask is not None)
    planes = [torch.ones(1, *grid, device=device) if mask is None else _area(mask, grid) for mask in masks]
    return rearrange(torch.cat(planes), "n h w -> n (h w)")


def _area(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    return F.interpolate(mask[None, None], grid, mode="area")[0]
