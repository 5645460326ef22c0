"""Images and latents in another size, also those that repeat."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..patching.vaes import decoded

Wraps = tuple[bool, bool]
"""Whether the left and right edges meet, and the top and bottom ones."""

REACH = 4
"""Width of the margin that cubic interpolation needs beside a place, in px of the coarser of both sizes."""

SEEN = 32
"""Width of the margin that an enlarging network sees of a texture's other side, in px of the image."""


def continued(images: Tensor, margin: int, wraps: Wraps) -> Tensor:
    """Continue images by `margin` px on all sides."""
    for axis, wrap in ((-1, wraps[0]), (-2, wraps[1])):
        length = images.shape[axis]
        places = torch.arange(-margin, length + margin, device=images.device)
        images = images.index_select(axis, places % length if wrap else places.clamp(0, length - 1))
    return images


def resized(planes: Tensor, size: tuple[int, int], wraps: Wraps = (False, False)) -> Tensor:
    """Resize (B, C, H, W) by cubic interpolation; what is shrunk is blurred first.

    Args:
        size: (height, width).
        wraps: whether the left and right edges meet, and the top and bottom ones; those still do afterwards.

    Examples:
        >>> import torch
        >>> from tessera.images.enlarging import resized
        >>> texture = torch.rand(1, 3, 8, 8)
        >>> moved = resized(texture.roll(4, -1), (16, 16), wraps=(True, True))
        >>> bool(torch.allclose(moved, resized(texture, (16, 16), wraps=(True, True)).roll(8, -1), atol=1e-5))
        True
    """
    sides = (planes.shape[-2], planes.shape[-1])
    if sides == tuple(size):
        return planes
    around = [_margin(*each) if wrap else 0 for *each, wrap in zip(sides, size, wraps[::-1], strict=True)]
    for axis, margin in zip((-2, -1), around, strict=True):
        places = torch.arange(-margin, planes.shape[axis] + margin, device=planes.device)
        planes = planes.index_select(axis, places % planes.shape[axis])
    cuts = [margin * new // old for margin, old, new in zip(around, sides, size, strict=True)]
    whole = [new + 2 * cut for new, cut in zip(size, cuts, strict=True)]
    large = F.interpolate(planes.float(), size=whole, mode="bicubic", antialias=True).to(planes.dtype)
    return large[..., cuts[0] : cuts[0] + size[0], cuts[1] : cuts[1] + size[1]]


def enlarged(
    latent: dict[str, Any],
    factor: float,
    wraps: Wraps = (False, False),
    vae: Any = None,
    network: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """Return a LATENT that is larger, rounded to whole latents.

    Args:
        latent: of images (B, C, h, w), or of images as one frame each (B, C, 1, h, w), as Qwen-Image's are.
        factor: how many times as wide and high.
        vae: decodes the latents, whose image is enlarged and encoded again; without it, the latents are.
        network: enlarges images (B, H, W, 3) by its own factor first.

    Raises:
        ValueError: the latents are those of a video.
    """
    samples: Tensor = latent["samples"]
    if samples.is_nested or samples.ndim not in (4, 5) or samples.shape[2:-2] not in ((), (1,)):
        raise ValueError("latent_image: found latents of a video, expected those of images; use nodes for video")
    cells = (round(samples.shape[-2] * factor), round(samples.shape[-1] * factor))
    if vae is None:
        larger = resized(samples.reshape(*samples.shape[:2], *samples.shape[-2:]), cells, wraps)
        return latent | {"samples": larger.reshape(*samples.shape[:-2], *cells)}
    # A VAE that knows frames would take a batch of images for those of one video.
    parts = samples.split(1) if samples.ndim == 5 else [samples]
    return latent | {"samples": torch.cat([_by_image(part, cells, wraps, vae, network) for part in parts])}


def _by_image(samples: Tensor, cells: tuple[int, int], wraps: Wraps, vae: Any, network: Any) -> Tensor:
    """Return latents of the enlarged image of latents; cells: (height, width) in latents."""
    planes = decoded(vae, samples)[..., :3].movedim(-1, 1)
    planes = planes if network is None else _by_network(planes, network, wraps)
    unit = vae.spacial_compression_encode()
    planes = resized(planes, (cells[0] * unit, cells[1] * unit), wraps).clamp(0, 1)
    return vae.encode(planes.movedim(1, -1))


def _by_network(planes: Tensor, network: Callable[[Tensor], Tensor], wraps: Wraps) -> Tensor:
    """Enlarge (B, 3, H, W) with a margin of the other side along axes that wrap."""
    margin = SEEN if any(wraps) else 0
    large = network(continued(planes, margin, wraps).movedim(1, -1)).movedim(-1, 1)
    cut = margin * large.shape[-1] // (planes.shape[-1] + 2 * margin)
    return large[..., cut : large.shape[-2] - cut, cut : large.shape[-1] - cut]


def _margin(old: int, new: int) -> int:
    """Return the least margin in px that is a whole number of px in both sizes and reaches far enough."""
    step = old // math.gcd(old, new)
    return math.ceil(REACH * max(1.0, old / new) / step) * step
