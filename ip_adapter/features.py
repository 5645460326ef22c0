"""What an image encoder (a host's CLIP_VISION) sees of images: all of a stack in one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from .formats import TIMED, WHOLE, Adapter

FITS = ["crop", "pad", "stretch", "tiles"]
UNCONDITIONALS = ["reference", "black", "noise"]
SMALLEST = 8
"""Pixels along a side of the smallest image."""

MOST_TILES = 8
"""Most tiles of an image that is much longer than wide."""

BATCH = 32
"""Most images that an encoder gets at once."""

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)


class Sight(NamedTuple):
    """An image and how an encoder sees it.

    Attributes:
        image: (m, H, W, 3) in 0..1; features of several images are averaged.
        fit: how an image becomes square, one of FITS. "tiles" cuts an oblong image into overlapping squares, whose
            tokens act side by side.
        unconditional: what guidance pushes away from, one of UNCONDITIONALS. "reference" is what adapters are trained
            with: zeros for embeddings and in Stable Diffusion 3.5, else an image of the encoder's mean colour. "black"
            is a black image, "noise" this image with its pixels shuffled.
        negative: an image (1, H, W, 3) that guidance pushes away from, instead.
    """

    image: Tensor
    fit: str = "crop"
    unconditional: str = "reference"
    negative: Tensor | None = None


class Job(NamedTuple):
    """An image for an encoder (1, H, W, 3), cut to its middle square or stretched."""

    image: Tensor
    crop: bool


def check_image(image: Tensor | list[Tensor]) -> Tensor:
    """Return the images of an IMAGE (B, H, W, 1, 3 or 4) as (B, H, W, 3), without transparency.

    Raises:
        ValueError: there are none, or they are too small, not finite, or of other channels.
    """
    if isinstance(image, list):
        sizes = ", ".join(dict.fromkeys(f"{each.shape[-2]} x {each.shape[-3]}" for each in image))
        raise ValueError(
            f"The image is a list of {len(image)} images ({sizes} px), expected a batch of one size; connect images of "
            "other sizes to an Image Prompt node each."
        )
    if image.ndim != 4 or image.shape[0] == 0 or image.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"The image has the shape {tuple(image.shape)}; expected at least one image, grey, RGB or RGBA, "
            "(B, H, W, C)."
        )
    if min(image.shape[1:3]) < SMALLEST:
        raise ValueError(
            f"The image is {image.shape[2]} x {image.shape[1]} px; an image prompt needs at least {SMALLEST} px along "
            "both sides."
        )
    if not torch.isfinite(image).all():
        raise ValueError("The image has values that are not finite; check the node that made it.")
    return image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image[..., :3]


def check_negative(image: Tensor) -> Tensor:
    """Return the one negative image (1, H, W, 3) of an IMAGE.

    Raises:
        ValueError: there are several, or `check_image` refuses it.
    """
    found = check_image(image)
    if len(found) != 1:
        raise ValueError(f"negative_image is a batch of {len(found)}; expected one image, select one of them.")
    return found


def see(adapter: Adapter, encoder: Any, sights: Sequence[Sight]) -> list[tuple[Tensor, Tensor]]:
    """Compute what an adapter's projector reads of images, each only once, and as many at a time as fit a batch.

    Args:
        adapter: says which features.
        encoder: a CLIP_VISION.
        sights: the images.

    Returns:
        For each the features of its tiles, (k, E) or (k, P, E), and those of the unconditional image, with k = 1.
    """
    jobs: dict[Any, Job] = {}
    wanted = []
    for place, sight in enumerate(sights):
        tiles = [squares(each, sight.fit) for each in sight.image.split(1)]
        named = {(place, i, k): job for i, found in enumerate(tiles) for k, job in enumerate(found)}
        blank = _unconditional(adapter, encoder, sight, place)
        jobs |= named | ({} if blank is None else dict([blank]))
        wanted.append((len(tiles[0]), list(named), None if blank is None else blank[0]))
    features = _encoded(adapter, encoder, jobs)
    return [_gathered(features, *each) for each in wanted]


def _gathered(features: dict[Any, Tensor], tiles: int, named: list[Any], blank: Any) -> tuple[Tensor, Tensor]:
    seen = torch.stack([features[key] for key in named]).unflatten(0, (-1, tiles)).mean(0)
    return seen, torch.zeros_like(seen[:1]) if blank is None else features[blank][None]


def _encoded(adapter: Adapter, encoder: Any, jobs: dict[Any, Job]) -> dict[Any, Tensor]:
    """Run the encoder once for all images of a size."""
    sizes: dict[tuple[torch.Size, bool], list[Any]] = {}
    for key, job in jobs.items():
        sizes.setdefault((job.image.shape, job.crop), []).append(key)
    found = {}
    for (_, crop), keys in sizes.items():
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            output = encoder.encode_image(torch.cat([jobs[key].image for key in part]), crop=crop)
            found |= dict(zip(part, _read(adapter, output), strict=True))
    return found


def _read(adapter: Adapter, output: Any) -> Tensor:
    return (output.image_embeds if adapter.kind in WHOLE else output.penultimate_hidden_states).float().cpu()


def _unconditional(adapter: Adapter, encoder: Any, sight: Sight, place: int) -> tuple[Any, Job] | None:
    """Return the unconditional image under a name that equal ones share; None where its features are zeros."""
    if sight.negative is not None:
        return (place, "negative"), squares(sight.negative, "crop" if sight.fit == "tiles" else sight.fit)[0]
    if sight.unconditional == "noise":
        return (place, "noise"), squares(_shuffled(squares(sight.image[:1], sight.fit)[0].image), sight.fit)[0]
    if sight.unconditional == "reference" and adapter.kind in (*WHOLE, TIMED):
        return None
    colour = getattr(encoder, "image_mean", _CLIP_MEAN) if sight.unconditional == "reference" else (0.0, 0.0, 0.0)
    plain = sight.image.new_tensor(colour).expand(1, SMALLEST, SMALLEST, 3)
    return sight.unconditional, Job(plain, True)


def squares(image: Tensor, fit: str) -> list[Job]:
    """Return what an encoder gets of an image (1, H, W, 3): one job, or one for each tile."""
    if fit == "tiles":
        return [Job(tile, True) for tile in tiles_of(image)]
    return [Job(pad(image) if fit == "pad" else image, fit == "crop")]


def tiles_of(image: Tensor) -> list[Tensor]:
    """Cut an image (1, H, W, C) into as few overlapping squares as cover it, MOST_TILES at most."""
    height, width = image.shape[1:3]
    side, length = min(height, width), max(height, width)
    count = min(MOST_TILES, math.ceil(length / side - 0.05))
    starts = [round(i * (length - side) / max(1, count - 1)) for i in range(count)]
    if count == 1:
        starts = [(length - side) // 2]
    return [image.narrow(1 if height > width else 2, start, side) for start in starts]


def pad(image: Tensor) -> Tensor:
    """Centre an image (1, H, W, C) in a black square."""
    height, width = image.shape[1:3]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    return F.pad(image, (0, 0, left, side - width - left, top, side - height - top))


def _shuffled(image: Tensor) -> Tensor:
    order = torch.randperm(image.shape[1] * image.shape[2], generator=torch.Generator().manual_seed(0))
    pixels = rearrange(image, "b h w c -> b (h w) c")[:, order.to(image.device)]
    return rearrange(pixels, "b (h w) c -> b h w c", h=image.shape[1])
