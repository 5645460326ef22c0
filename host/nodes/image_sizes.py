"""ComfyUI's core nodes that give images another size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..images.scaling import UPSCALE_METHODS, resize
from ..schema import io
from ..schema.declare import Nodes, choice, decimal, integer
from ..schema.limits import MAX_RESOLUTION

NODES = Nodes("image/upscaling")
MEGAPIXEL = 1024 * 1024
KONTEXT_SIZES = [
    *((672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104)),
    *((1024, 1024), (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688)),
    (1568, 672),
]
"""Widths and heights that Flux.1 Kontext was trained on (black-forest-labs)."""

Size = tuple[int, int]


def _method(name: str, options: list[str], **more: Any) -> io.Combo.Input:
    return choice(name, options, tooltip="How new pixels are computed.", **more)


def longest(width: int, height: int, size: int) -> Size:
    """Return a size (width, height) whose longer side is `size`."""
    if width == height:
        return size, size
    return (round(width / height * size), size) if height > width else (size, round(height / width * size))


def shortest(width: int, height: int, size: int) -> Size:
    """Return a size (width, height) whose shorter side is `size`."""
    if width == height:
        return size, size
    return (round(width / height * size), size) if height < width else (size, round(height / width * size))


@NODES(
    "ImageScaleToTotalPixels",
    "Scale Image to Total Pixels",
    [
        io.Image.Input("image"),
        _method("upscale_method", UPSCALE_METHODS),
        decimal("megapixels", 1.0, 0.01, 16.0, tooltip="1 is 1024 x 1024."),
        integer("resolution_steps", 1, 1, 256, advanced=True, tooltip="What both sides are multiples of."),
    ],
    [io.Image],
)
def to_total_pixels(image: Tensor, upscale_method: str, megapixels: float, resolution_steps: int = 1) -> Tensor:
    """Scale images to a number of pixels; their proportions stay."""
    height, width = image.shape[1:3]
    scale = math.sqrt(megapixels * MEGAPIXEL / (width * height))
    width, height = (round(side * scale / resolution_steps) * resolution_steps for side in (width, height))
    return resize(image, width, height, upscale_method)


@NODES(
    "ImageScaleToMaxDimension",
    "Scale Image to Max Dimension",
    [
        io.Image.Input("image"),
        _method("upscale_method", ["area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"]),
        integer("largest_size", 512, 0, MAX_RESOLUTION, tooltip="The longer side in pixels."),
    ],
    [io.Image],
)
def to_max_dimension(image: Tensor, upscale_method: str, largest_size: int) -> Tensor:
    """Scale images so that the longer side has a length."""
    height, width = image.shape[1:3]
    return resize(image, *longest(width, height, largest_size), upscale_method)


@NODES(
    "FluxKontextImageScale",
    "FluxKontextImageScale",
    [io.Image.Input("image")],
    [io.Image],
    "model/conditioning/flux",
)
def to_kontext_size(image: Tensor) -> Tensor:
    """Scale and crop images to the size nearest in proportion that Flux.1 Kontext was trained on."""
    aspect = image.shape[2] / image.shape[1]
    _, width, height = min((abs(aspect - w / h), w, h) for w, h in KONTEXT_SIZES)
    return resize(image, width, height, "lanczos", "center")


@NODES(
    "ResizeAndPadImage",
    "Resize And Pad Image",
    [
        io.Image.Input("image"),
        integer("target_width", 512, 1, MAX_RESOLUTION, tooltip="In pixels."),
        integer("target_height", 512, 1, MAX_RESOLUTION, tooltip="In pixels."),
        choice("padding_color", ["white", "black"], advanced=True, tooltip="Colour of the margin."),
        _method("interpolation", ["area", "bicubic", "nearest-exact", "bilinear", "lanczos"], advanced=True),
    ],
    [io.Image],
    "image/transform",
    search_aliases=["fit to size"],
)
def resize_and_pad(
    image: Tensor, target_width: int, target_height: int, padding_color: str, interpolation: str
) -> Tensor:
    """Scale images into a size, with margins where the proportions differ."""
    height, width = image.shape[1:3]
    scale = min(target_width / width, target_height / height)
    scaled = resize(image, int(width * scale), int(height * scale), interpolation)
    value = 0.0 if padding_color == "black" else 1.0
    made = torch.full((len(image), target_height, target_width, image.shape[-1]), value, dtype=image.dtype)
    top, left = (target_height - scaled.shape[1]) // 2, (target_width - scaled.shape[2]) // 2
    made[:, top : top + scaled.shape[1], left : left + scaled.shape[2]] = scaled
    return made


EITHER = io.MatchType.Template("input_type", (io.Image, io.Mask))


def _side(name: str) -> io.Int.Input:
    return integer(name, 512, 0, MAX_RESOLUTION, tooltip="In pixels; 0 keeps the proportions.")


def _crop() -> io.Combo.Input:
    return choice("crop", ["disabled", "center"], default="center", tooltip="Whether other proportions cut or squeeze.")


def _dimensions(width: int, height: int, chosen: dict[str, Any]) -> Size:
    wide, high = chosen.get("width", 0), chosen.get("height", 0)
    if not wide and not high:
        return width, height
    return wide or max(1, round(width * high / height)), high or max(1, round(height * wide / width))


def _multiple(width: int, height: int, chosen: dict[str, Any]) -> Size:
    return tuple(side // chosen["multiple"] * chosen["multiple"] for side in (width, height))  # type: ignore[return-value]


def _total(width: int, height: int, chosen: dict[str, Any]) -> Size:
    scale = math.sqrt(int(chosen["megapixels"] * MEGAPIXEL) / (width * height))
    return round(width * scale), round(height * scale)


def _matching(width: int, height: int, chosen: dict[str, Any]) -> Size:
    return chosen["match"].shape[2], chosen["match"].shape[1]


RESIZES: dict[str, tuple[list[io.Input], Callable[[int, int, dict[str, Any]], Size]]] = {
    "scale dimensions": ([_side("width"), _side("height"), _crop()], _dimensions),
    "scale by multiplier": (
        [decimal("multiplier", 1.0, 0.01, 8.0, tooltip="Factor of both sides.")],
        lambda width, height, chosen: (round(width * chosen["multiplier"]), round(height * chosen["multiplier"])),
    ),
    "scale longer dimension": (
        [_side("longer_size")],
        lambda width, height, chosen: longest(width, height, chosen["longer_size"]),
    ),
    "scale shorter dimension": (
        [_side("shorter_size")],
        lambda width, height, chosen: shortest(width, height, chosen["shorter_size"]),
    ),
    "scale width": ([_side("width")], _dimensions),
    "scale height": ([_side("height")], _dimensions),
    "scale total pixels": ([decimal("megapixels", 1.0, 0.01, 16.0, tooltip="1 is 1024 x 1024.")], _total),
    "match size": (
        [io.MultiType.Input("match", [io.Image, io.Mask], tooltip="The image or mask whose size is taken."), _crop()],
        _matching,
    ),
    "scale to multiple": (
        [integer("multiple", 8, 1, MAX_RESOLUTION, tooltip="What both sides are multiples of; the rest is cut off.")],
        _multiple,
    ),
}
"""Ways to choose a size: their inputs, and the size (width, height) of an image of a size."""


@NODES(
    "ResizeImageMaskNode",
    "Resize Image/Mask",
    [
        io.MatchType.Input("input", EITHER, tooltip="The images or masks."),
        io.DynamicCombo.Input(
            "resize_type",
            [io.DynamicCombo.Option(key, inputs) for key, (inputs, _) in RESIZES.items()],
            tooltip="How the size is chosen.",
        ),
        _method("scale_method", UPSCALE_METHODS, default="area"),
    ],
    [io.MatchType.Output(EITHER, "resized")],
    "image/transform",
    search_aliases=[
        "resize",
        "resize image",
        "resize mask",
        "scale",
        "scale image",
        "scale mask",
        "image resize",
        "change size",
        "dimensions",
        "shrink",
        "enlarge",
    ],
)
def resize_any(input: Tensor, resize_type: dict[str, Any], scale_method: str) -> Tensor:
    """Scale images or masks."""
    images = input if input.ndim == 4 else input[..., None]
    height, width = images.shape[1:3]
    chosen = resize_type["resize_type"]
    size = RESIZES[chosen][1](width, height, resize_type)
    if chosen == "scale to multiple":
        made = images if 0 in size or size == (width, height) else _cover(images, *size, scale_method)
    elif RESIZES[chosen][1] is _dimensions and not resize_type.get("width") and not resize_type.get("height"):
        made = images
    else:
        made = resize(images, *size, scale_method, resize_type.get("crop", "disabled"))
    return made if input.ndim == 4 else made[..., 0]


def _cover(images: Tensor, width: int, height: int, method: str) -> Tensor:
    """Return images scaled until they cover a size, and cropped to it."""
    old_height, old_width = images.shape[1:3]
    across, down = width / old_width, height / old_height
    if across >= down:
        size = width, max(height, math.ceil(old_height * across))
    else:
        size = max(width, math.ceil(old_width * down)), height
    scaled = resize(images, *size, method)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return scaled[:, top : top + height, left : left + width]
