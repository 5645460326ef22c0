"""ComfyUI's core nodes that make and change masks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..images.scaling import resize
from ..schema import io, ui
from ..schema.declare import Nodes, choice, decimal, integer, switch
from ..schema.limits import MAX_RESOLUTION

NODES = Nodes("image/mask")
OPERATIONS = {
    "multiply": lambda one, two: one * two,
    "add": lambda one, two: one + two,
    "subtract": lambda one, two: one - two,
    "and": lambda one, two: (one.round().bool() & two.round().bool()).float(),
    "or": lambda one, two: (one.round().bool() | two.round().bool()).float(),
    "xor": lambda one, two: (one.round().bool() ^ two.round().bool()).float(),
}


def _pixels(*names: str, default: int = 0, low: int = 0) -> list[io.Input]:
    return [integer(name, default, low, MAX_RESOLUTION, tooltip="In pixels.") for name in names]


def _flat(mask: Tensor) -> Tensor:
    return mask.reshape(-1, *mask.shape[-2:])


@NODES(
    "MaskToImage",
    "Convert Mask to Image",
    [io.Mask.Input("mask")],
    [io.Image],
    search_aliases=["convert mask"],
)
def to_image(mask: Tensor) -> Tensor:
    """Make a grey image of a mask."""
    return _flat(mask)[..., None].expand(-1, -1, -1, 3)


@NODES(
    "ImageColorToMask",
    "Convert Image Color to Mask",
    [
        io.Image.Input("image"),
        integer("color", 0, 0, 0xFFFFFF, display_mode=io.NumberDisplay.number, tooltip="As a number, 0xRRGGBB."),
    ],
    [io.Mask],
    search_aliases=["color keying", "chroma key"],
)
def of_color(image: Tensor, color: int) -> Tensor:
    """Make a mask that is white where an image has a colour."""
    levels = (image.clamp(0, 1) * 255.0).round().int()
    numbers = (levels[..., 0] << 16) + (levels[..., 1] << 8) + levels[..., 2]
    return (numbers == color).float()


@NODES(
    "SolidMask",
    "Create Solid Mask",
    [decimal("value", 1.0, 0.0, 1.0, tooltip="1 is white."), *_pixels("width", "height", default=512, low=1)],
    [io.Mask],
)
def solid(value: float, width: int, height: int) -> Tensor:
    """Make a mask of one value."""
    return torch.full((1, height, width), value)


@NODES(
    "CropMask",
    "Crop Mask",
    [io.Mask.Input("mask"), *_pixels("x", "y"), *_pixels("width", "height", default=512, low=1)],
    [io.Mask],
    search_aliases=["cut mask", "extract mask region", "mask slice"],
)
def crop(mask: Tensor, x: int, y: int, width: int, height: int) -> Tensor:
    """Cut a rectangle out of a mask."""
    return _flat(mask)[:, y : y + height, x : x + width]


@NODES(
    "MaskComposite",
    "Combine Masks",
    [
        io.Mask.Input("destination"),
        io.Mask.Input("source"),
        *_pixels("x", "y"),
        choice("operation", list(OPERATIONS), tooltip="How values are combined."),
    ],
    [io.Mask],
    search_aliases=["combine masks", "blend masks", "layer masks", "masks composition"],
)
def composite(destination: Tensor, source: Tensor, x: int, y: int, operation: str) -> Tensor:
    """Combine two masks where they overlap."""
    made, over = _flat(destination).clone(), _flat(source)
    place = made[:, y : y + over.shape[-2], x : x + over.shape[-1]]
    place.copy_(OPERATIONS[operation](place, over[:, : place.shape[-2], : place.shape[-1]]))
    return made.clamp(0.0, 1.0)


@NODES(
    "FeatherMask",
    "Feather Mask",
    [io.Mask.Input("mask"), *_pixels("left", "top", "right", "bottom")],
    [io.Mask],
    search_aliases=["soft edge mask", "blur mask edges", "gradient mask edge"],
)
def feather(mask: Tensor, left: int, top: int, right: int, bottom: int) -> Tensor:
    """Fade a mask out towards the edges of the image."""
    made = _flat(mask).clone()
    for axis, first, last in ((-1, left, right), (-2, top, bottom)):
        length = made.shape[axis]
        first, last = min(first, length), min(last, length)
        for pixel in range(first):
            made.select(axis, pixel).mul_((pixel + 1.0) / first)
        for pixel in range(last):
            made.select(axis, -1 - pixel).mul_((pixel + 1.0) / last)
    return made


@NODES(
    "GrowMask",
    "Grow Mask",
    [
        io.Mask.Input("mask"),
        integer("expand", 0, -MAX_RESOLUTION, MAX_RESOLUTION, tooltip="Pixels to grow by; below 0 it shrinks."),
        switch("tapered_corners", True, advanced=True, tooltip="Whether corners are cut off."),
    ],
    [io.Mask],
    search_aliases=["expand mask", "shrink mask"],
)
def grow(mask: Tensor, expand: int, tapered_corners: bool) -> Tensor:
    """Grow the white part of a mask, or shrink it."""
    made = _flat(mask)
    for _ in range(abs(expand)):
        made = spread(made, tapered_corners) if expand > 0 else -spread(-made, tapered_corners)
    return made


def spread(mask: Tensor, tapered: bool) -> Tensor:
    """Return the largest value (B, H, W) of each pixel and its four neighbours, or eight without `tapered`."""
    padded = F.pad(mask[None], (1, 1, 1, 1), mode="replicate")
    if not tapered:
        return F.max_pool2d(padded, 3, stride=1)[0]
    upright, level = F.max_pool2d(padded, (3, 1), stride=1), F.max_pool2d(padded, (1, 3), stride=1)
    return torch.maximum(upright[..., 1:-1], level[..., 1:-1, :])[0]


@NODES(
    "ThresholdMask",
    "Threshold Mask",
    [io.Mask.Input("mask"), decimal("value", 0.5, 0.0, 1.0, tooltip="What lies above it becomes white.")],
    [io.Mask],
    search_aliases=["binary mask"],
)
def threshold(mask: Tensor, value: float) -> Tensor:
    """Make a mask black and white."""
    return (mask > value).float()


@NODES(
    "MaskPreview",
    "Preview Mask",
    [io.Mask.Input("mask")],
    [("mask", io.Mask)],
    is_output_node=True,
    search_aliases=["show mask", "view mask", "inspect mask", "debug mask"],
)
def preview(mask: Tensor) -> io.NodeOutput:
    """Show a mask on the node."""
    return io.NodeOutput(mask, ui=ui.PreviewImage(to_image(mask)))


@NODES(
    "BatchMasksNode",
    "Batch Masks",
    [
        io.Autogrow.Input(
            "masks",
            io.Autogrow.TemplatePrefix(io.Mask.Input("mask"), prefix="mask", min=1, max=50),
            tooltip="The masks; linking the last adds another.",
        )
    ],
    [io.Mask],
    search_aliases=["combine masks", "stack masks", "merge masks"],
)
def batch(masks: dict[str, Tensor]) -> Tensor:
    """Join masks to a batch, in the size of the first."""
    first, *others = masks.values()
    height, width = first.shape[-2:]

    def fitted(mask: Tensor) -> Tensor:
        if mask.shape[-2:] == first.shape[-2:]:
            return mask
        return resize(mask[..., None], width, height, "bilinear", "center")[..., 0]

    return torch.cat([first, *map(fitted, others)])
