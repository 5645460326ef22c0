"""Edges of images, with the numbers of kornia's `canny`, which ComfyUI's node takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LUMINANCE = (0.299, 0.587, 0.114)
BLUR_RADIUS = 2
EPSILON = 1e-6
"""Under the root, so that flat pixels have a direction, too."""

NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""(down, right) of a pixel's neighbours, from the right one clockwise."""


def canny(images: Tensor, low: float, high: float) -> Tensor:
    """Return Canny's edges: the ridges of the gradient above `high`, and those above `low` that touch them.

    Args:
        images: (B, 3, H, W) in 0..1, at least 3 px a side.
        low, high: of the Sobel gradient, which is 4 at a step from black to white before the blur.

    Returns:
        (B, 1, H, W) of 0 and 1.

    Raises:
        ValueError: low is above high.
    """
    if low > high:
        raise ValueError(f"low_threshold is {low}, expected at most the high_threshold of {high}")
    grey = torch.einsum("bchw,c->bhw", images, images.new_tensor(LUMINANCE))[:, None]
    ridges = _ridges(*_gradient(_blurred(grey)))
    return _connected(ridges > high, ridges > low).to(images.dtype)


def _blurred(grey: Tensor) -> Tensor:
    """Blur with a Gaussian of 5 x 5 px and sigma 1; edges of the image are mirrored."""
    kernel = torch.exp(-(torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1).to(grey) ** 2) / 2)
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, -1)
    padded = F.pad(grey, [BLUR_RADIUS] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel), kernel.mT)


def _gradient(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Return Sobel's gradients, towards the right and down."""
    right = grey.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])[None, None]
    padded = F.pad(grey, [1] * 4, mode="replicate")
    return F.conv2d(padded, right), F.conv2d(padded, right.mT)


def _ridges(right: Tensor, down: Tensor) -> Tensor:
    """Return the gradient's length where it is greatest along its direction, else 0.

    Of two equal pixels across a step the left, or upper, one stays.
    """
    height, width = right.shape[-2:]
    padded = (F.pad(right, [1] * 4) ** 2 + F.pad(down, [1] * 4) ** 2 + EPSILON).sqrt()
    around = torch.cat([padded[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in NEIGHBOURS], 1)
    length = padded[..., 1:-1, 1:-1]
    direction = (torch.atan2(down, right) * (4 / math.pi)).round().long() % 8
    greatest = length > EPSILON**0.5
    for towards in (direction, (direction + 4) % 8):
        other = around.gather(1, towards)
        tied = ((towards == 0) | (towards == 2)) & (length == other)
        greatest &= (length > other) | tied
    return length * greatest


def _connected(strong: Tensor, weak: Tensor) -> Tensor:
    """Return the weak pixels that strong ones reach through weak neighbours."""
    while True:
        reached = (F.max_pool2d(strong.float(), 3, 1, 1) > 0) & weak
        if torch.equal(reached, strong):
            return strong
        strong = reached
