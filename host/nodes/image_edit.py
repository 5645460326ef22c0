"""ComfyUI's core nodes that make, cut, turn and filter images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..images import filters
from ..images.scaling import resize
from ..schema import io, ui
from ..schema.declare import Nodes, choice, decimal, integer
from ..schema.limits import MAX_RESOLUTION, MAX_SEED
from .latent_edit import FLIPS, TURNS

NODES = Nodes("image/transform")
BATCH, FILTERS = "image/batch", "image/filters"


def alike(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Return images with the channels of the first; a missing alpha is opaque."""
    channels = one.shape[-1]
    if two.shape[-1] >= channels:
        return one, two[..., :channels]
    return one, F.pad(two, (0, channels - two.shape[-1]), value=1.0)


@NODES(
    "ImageInvert",
    "Invert Image Colors",
    [io.Image.Input("image")],
    [io.Image],
    "image/color",
    search_aliases=["reverse colors"],
)
def invert(image: Tensor) -> Tensor:
    """Invert the colours of images."""
    return 1.0 - image


@NODES(
    "EmptyImage",
    "Empty Image",
    [
        integer("width", 512, 1, MAX_RESOLUTION),
        integer("height", 512, 1, MAX_RESOLUTION),
        integer("batch_size", 1, 1, 4096),
        io.Int.Input(
            "color", default=0, min=0, max=0xFFFFFF, step=1, extra_dict={"display": "color"}, tooltip="0xRRGGBB."
        ),
    ],
    [io.Image],
    "image",
)
def empty(width: int, height: int, batch_size: int = 1, color: int = 0) -> Tensor:
    """Make images of one colour."""
    levels = torch.tensor([(color >> shift & 0xFF) / 0xFF for shift in (16, 8, 0)])
    return levels.expand(batch_size, height, width, 3).clone()


@NODES(
    "ImageCrop",
    "Crop Image (DEPRECATED)",
    [
        io.Image.Input("image"),
        integer("width", 512, 1, MAX_RESOLUTION),
        integer("height", 512, 1, MAX_RESOLUTION),
        integer("x", 0, 0, MAX_RESOLUTION),
        integer("y", 0, 0, MAX_RESOLUTION),
    ],
    [io.Image],
    is_deprecated=True,
    search_aliases=["trim"],
)
def crop(image: Tensor, width: int, height: int, x: int, y: int) -> Tensor:
    """Cut a rectangle out of images."""
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return image[:, y : y + height, x : x + width]


@NODES(
    "RepeatImageBatch",
    "Repeat Image Batch",
    [io.Image.Input("image"), integer("amount", 1, 1, 4096, tooltip="How often.")],
    [io.Image],
    BATCH,
    search_aliases=["duplicate image", "clone image"],
)
def repeat(image: Tensor, amount: int) -> Tensor:
    """Repeat a batch of images."""
    return image.repeat(amount, 1, 1, 1)


@NODES(
    "ImageFromBatch",
    "Get Image from Batch",
    [
        io.Image.Input("image"),
        integer("batch_index", 0, -MAX_RESOLUTION, MAX_RESOLUTION, tooltip="The first; below 0 from the end."),
        integer("length", 1, 1, 4096, tooltip="How many."),
    ],
    [io.Image],
    BATCH,
    search_aliases=["select image", "pick from batch", "extract image"],
)
def from_batch(image: Tensor, batch_index: int, length: int) -> Tensor:
    """Take some images out of a batch."""
    count = image.shape[0]
    first = max(0, min(count - 1, batch_index + count if batch_index < 0 else batch_index))
    return image[first : first + length].clone()


@NODES(
    "ImageAddNoise",
    "Add Noise to Image",
    [
        io.Image.Input("image"),
        integer("seed", 0, 0, MAX_SEED, control_after_generate=True),
        decimal("strength", 0.5, 0.0, 1.0, tooltip="Its standard deviation."),
    ],
    [io.Image],
    FILTERS,
    search_aliases=["film grain"],
)
def add_noise(image: Tensor, seed: int, strength: float) -> Tensor:
    """Add random noise to images."""
    generator = torch.Generator().manual_seed(seed)
    return (image + strength * torch.randn(image.shape, generator=generator).to(image)).clip(0.0, 1.0)


@NODES(
    "ImageRotate",
    "Rotate Image",
    [io.Image.Input("image"), choice("rotation", TURNS, tooltip="Clockwise.")],
    [io.Image],
    search_aliases=["turn", "flip orientation"],
)
def rotate(image: Tensor, rotation: str) -> Tensor:
    """Rotate images."""
    return torch.rot90(image, k=TURNS.index(rotation), dims=[2, 1])


@NODES(
    "ImageFlip",
    "Flip Image",
    [io.Image.Input("image"), choice("flip_method", FLIPS, tooltip="About which axis.")],
    [io.Image],
    search_aliases=["mirror", "reflect"],
)
def flip(image: Tensor, flip_method: str) -> Tensor:
    """Mirror images."""
    return torch.flip(image, dims=[1 + FLIPS.index(flip_method)])


@NODES(
    "ImageBlend",
    "Blend Images",
    [
        io.Image.Input("image1"),
        io.Image.Input("image2"),
        decimal("blend_factor", 0.5, 0.0, 1.0, tooltip="1 is the blended image alone."),
        choice("blend_mode", list(filters.BLENDS), tooltip="How the second is blended over the first."),
    ],
    [io.Image],
    FILTERS,
    search_aliases=["mix images"],
)
def blend(image1: Tensor, image2: Tensor, blend_factor: float, blend_mode: str) -> Tensor:
    """Blend an image over another."""
    one, two = alike(image1, image2)
    if one.shape != two.shape:
        two = resize(two, one.shape[2], one.shape[1], "bicubic", "center")
    return (one * (1 - blend_factor) + filters.BLENDS[blend_mode](one, two) * blend_factor).clamp(0, 1)


@NODES(
    "ImageBlur",
    "Blur Image",
    [
        io.Image.Input("image"),
        integer("blur_radius", 1, 1, 31, tooltip="In pixels."),
        decimal("sigma", 1.0, 0.1, 10.0, 0.1, tooltip="Width of the blur, in radii."),
    ],
    [io.Image],
    FILTERS,
)
def blur(image: Tensor, blur_radius: int, sigma: float) -> Tensor:
    """Blur images."""
    return filters.blur(image, blur_radius, sigma)


@NODES(
    "ImageSharpen",
    "Sharpen Image",
    [
        io.Image.Input("image"),
        integer("sharpen_radius", 1, 1, 31, advanced=True, tooltip="In pixels."),
        decimal("sigma", 1.0, 0.1, 10.0, advanced=True, tooltip="Width of the blur that is taken away, in radii."),
        decimal("alpha", 1.0, 0.0, 5.0, advanced=True, tooltip="How much is taken away."),
    ],
    [io.Image],
    FILTERS,
)
def sharpen(image: Tensor, sharpen_radius: int, sigma: float, alpha: float) -> Tensor:
    """Sharpen images."""
    return filters.sharpen(image, sharpen_radius, sigma, alpha)


@NODES(
    "ImageQuantize",
    "Quantize Image",
    [
        io.Image.Input("image"),
        integer("colors", 256, 1, 256, tooltip="How many colours remain."),
        choice("dither", filters.DITHERS, tooltip="How steps between colours are hidden."),
    ],
    [io.Image],
    FILTERS,
)
def quantize(image: Tensor, colors: int, dither: str) -> Tensor:
    """Reduce images to a few colours."""
    return filters.quantize(image, colors, dither)


COLORS = {"white": (1, 1, 1), "black": (0, 0, 0), "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


@NODES(
    "ImageStitch",
    "Stitch Images",
    [
        io.Image.Input("image1"),
        choice("direction", ["right", "down", "left", "up"], default="right", tooltip="Where the second goes."),
        io.Boolean.Input("match_image_size", default=True, tooltip="Whether the second is scaled to the first."),
        integer("spacing_width", 0, 0, 1024, 2, advanced=True, tooltip="Pixels between them."),
        choice("spacing_color", list(COLORS), default="white", advanced=True, tooltip="Colour between them."),
        io.Image.Input("image2", optional=True),
    ],
    [io.Image],
    search_aliases=["combine images", "join images", "concatenate images", "side by side"],
)
def stitch(
    image1: Tensor,
    direction: str,
    match_image_size: bool,
    spacing_width: int,
    spacing_color: str,
    image2: Tensor | None = None,
) -> Tensor:
    """Put two images side by side."""
    if image2 is None:
        return image1
    axis = 2 if direction in ("left", "right") else 1
    count = max(len(image1), len(image2))
    one, two = (torch.cat([each, each[-1:].repeat(count - len(each), 1, 1, 1)]) for each in (image1, image2))
    color = torch.tensor(COLORS[spacing_color], dtype=one.dtype)
    pair = _scaled(one, two, axis) if match_image_size else _padded([one, two], axis, color)
    channels = max(each.shape[-1] for each in pair)
    pair = [F.pad(each, (0, channels - each.shape[-1]), value=1.0) for each in pair]
    if direction in ("left", "up"):
        pair.reverse()
    if spacing_width:
        shape = list(pair[0].shape)
        shape[axis] = spacing_width + spacing_width % 2
        pair.insert(1, F.pad(color, (0, channels - 3), value=1.0).expand(shape))
    return torch.cat(pair, axis)


def _scaled(one: Tensor, two: Tensor, axis: int) -> list[Tensor]:
    height, width = one.shape[1:3]
    aspect = two.shape[2] / two.shape[1]
    size = (int(height * aspect), height) if axis == 2 else (width, int(width / aspect))
    return [one, resize(two, *size, "lanczos")]


def _padded(pair: list[Tensor], axis: int, color: Tensor) -> list[Tensor]:
    """Return images centred on grounds of one size across `axis`; colours other than grey leave them black."""
    across = 3 - axis
    length = max(each.shape[across] for each in pair)
    value = float(color[0]) if len(set(color.tolist())) == 1 else 0.0
    made = []
    for each in pair:
        missing = length - each.shape[across]
        sides = [missing // 2, missing - missing // 2]
        padding = [0, 0, 0, 0, *sides] if across == 1 else [0, 0, *sides]
        made.append(F.pad(each, padding, value=value) if missing else each)
    return made


@NODES(
    "GetImageSize",
    "Get Image Size",
    [io.Image.Input("image")],
    [("width", io.Int), ("height", io.Int), ("batch_size", io.Int)],
    "image",
    search_aliases=["dimensions", "resolution", "image info"],
)
def size(image: Tensor) -> tuple[int, int, int]:
    """Return the size of images, and how many there are."""
    return image.shape[2], image.shape[1], image.shape[0]


@NODES(
    "BatchImagesNode",
    "Batch Images",
    [
        io.Autogrow.Input(
            "images",
            io.Autogrow.TemplatePrefix(io.Image.Input("image"), prefix="image", min=1, max=50),
            tooltip="The images; linking the last adds another.",
        )
    ],
    [io.Image],
    BATCH,
    search_aliases=["batch", "image batch", "batch images", "combine images", "merge images", "stack images"],
)
def batch(images: dict[str, Tensor]) -> Tensor:
    """Join images to a batch, in the size of the first."""
    channels = max(each.shape[-1] for each in images.values())
    padded = [each if each.shape[-1] == channels else F.pad(each, (0, 1), value=1.0) for each in images.values()]
    height, width = padded[0].shape[1:3]
    return torch.cat(
        [
            each if each.shape[1:3] == (height, width) else resize(each, width, height, "bilinear", "center")
            for each in padded
        ]
    )


@NODES(
    "RebatchImages",
    "Rebatch Images",
    [io.Image.Input("images"), integer("batch_size", 1, 1, 4096)],
    [io.Image.Output(is_output_list=True)],
    BATCH,
    is_input_list=True,
)
def rebatch(images: list[Tensor], batch_size: list[int]) -> io.NodeOutput:
    """Divide images into batches of another size, for which what follows runs one after another."""
    single = [image[None] for each in images for image in each]
    starts = range(0, len(single), batch_size[0])
    return io.NodeOutput([torch.cat(single[first : first + batch_size[0]]) for first in starts])


@NODES(
    "SplitImageWithAlpha",
    "Split Image with Alpha",
    [io.Image.Input("image")],
    [io.Image, io.Mask],
    "image/compositing",
    search_aliases=["extract alpha", "separate transparency", "remove alpha"],
)
def split_alpha(image: Tensor) -> tuple[Tensor, Tensor]:
    """Divide images into colours and a mask that is white where they are transparent."""
    alpha = image[..., 3] if image.shape[-1] > 3 else torch.ones_like(image[..., 0])
    return image[..., :3], 1.0 - alpha


@NODES(
    "ImageCompare",
    "Compare Images",
    [
        io.ImageCompare.Input("compare_view", socketless=True, tooltip="The slider."),
        io.Image.Input("image_a", optional=True),
        io.Image.Input("image_b", optional=True),
    ],
    [],
    "image",
    is_output_node=True,
    is_experimental=True,
)
def compare(image_a: Tensor | None = None, image_b: Tensor | None = None, compare_view: Any = None) -> io.NodeOutput:
    """Show two images with a slider between them."""
    shown = {"a_images": image_a, "b_images": image_b}
    saved = {name: [] if image is None else ui.PreviewImage(image).values for name, image in shown.items()}
    return io.NodeOutput(ui=saved)
