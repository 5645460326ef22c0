"""ComfyUI's nodes that load, change and save images."""

from __future__ import annotations

import hashlib
import os

import torch
from torch import Tensor
from torch.nn import functional as F

from ...files.reading import open_file
from .. import folder_paths
from ..images.loading import load_image
from ..images.scaling import UPSCALE_METHODS, resize
from ..schema import io, ui
from ..schema.limits import MAX_RESOLUTION
from .saving import stays_inside

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif"}
CHANNELS = ["alpha", "red", "green", "blue"]


def _input_images() -> folder_paths.FileNames:
    folder = folder_paths.get_input_directory()
    if not os.path.isdir(folder):
        return folder_paths.FileNames()
    names = [name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name))]
    return folder_paths.FileNames(sorted(n for n in names if os.path.splitext(n)[1].lower() in IMAGE_ENDINGS))


def _file_input() -> io.Combo.Input:
    return io.Combo.Input(
        "image", options=_input_images(), upload=io.UploadType.image, tooltip="The file in the input folder."
    )


def _check_file(image: str) -> bool | str:
    if folder_paths.exists_annotated_filepath(image):
        path = folder_paths.get_annotated_filepath(image)
        return os.path.isfile(path) or f"{path} is not a file; name an image"
    return f"{image} is not in {folder_paths.get_input_directory()}; put it there, or name another file"


def _digest(image: str) -> str:
    digest = hashlib.sha256()
    with open_file(folder_paths.get_annotated_filepath(image)) as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


class LoadImage(io.ComfyNode):
    """ComfyUI's Load Image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="LoadImage",
            display_name="Load Image",
            category="image",
            description="Loads an image, or all frames of an animated one.",
            search_aliases=[
                "load image",
                "open image",
                "import image",
                "image input",
                "upload image",
                "read image",
                "image loader",
            ],
            inputs=[_file_input()],
            outputs=[
                io.Image.Output(tooltip="The image."),
                io.Mask.Output(tooltip="Its transparency, 1 where it is fully transparent."),
            ],
        )

    @classmethod
    def execute(cls, image: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(*load_image(folder_paths.get_annotated_filepath(image)))

    @classmethod
    def validate_inputs(cls, image: str) -> bool | str:
        """Return whether the file is there."""
        return _check_file(image)

    @classmethod
    def fingerprint_inputs(cls, image: str) -> str:
        """Return a fingerprint that changes with the file's content."""
        return _digest(image)


class LoadImageMask(io.ComfyNode):
    """ComfyUI's Load Image (as Mask)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="LoadImageMask",
            display_name="Load Image (as Mask)",
            category="image",
            description="Loads one channel of an image as a mask.",
            search_aliases=["import mask", "alpha mask", "channel mask"],
            inputs=[
                _file_input(),
                io.Combo.Input(
                    "channel",
                    options=CHANNELS,
                    tooltip="Which channel; alpha gives 1 where it is fully transparent.",
                ),
            ],
            outputs=[io.Mask.Output(tooltip="The mask.")],
        )

    @classmethod
    def execute(cls, image: str, channel: str) -> io.NodeOutput:
        """Load it."""
        rgb, mask = load_image(folder_paths.get_annotated_filepath(image))
        return io.NodeOutput(mask if channel == "alpha" else rgb[..., CHANNELS.index(channel) - 1].clone())

    @classmethod
    def validate_inputs(cls, image: str) -> bool | str:
        """Return whether the file is there."""
        return _check_file(image)

    @classmethod
    def fingerprint_inputs(cls, image: str, channel: str) -> str:
        """Return a fingerprint that changes with the file's content."""
        return _digest(image)


class ImageScale(io.ComfyNode):
    """ComfyUI's Upscale Image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="ImageScale",
            display_name="Upscale Image",
            category="image/upscaling",
            description="Gives images another size.",
            search_aliases=["resize", "resize image", "scale image", "image resize", "zoom", "zoom in", "change size"],
            inputs=[
                io.Image.Input("image", tooltip="The images."),
                io.Combo.Input("upscale_method", options=UPSCALE_METHODS, tooltip="How new pixels are computed."),
                _size("width"),
                _size("height"),
                io.Combo.Input(
                    "crop",
                    options=["disabled", "center"],
                    tooltip="center cuts the longer side to the new proportions, disabled squeezes.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The images in their new size.")],
        )

    @classmethod
    def execute(cls, image: Tensor, upscale_method: str, width: int, height: int, crop: str) -> io.NodeOutput:
        """Resize; a side of 0 follows from the other one."""
        if width == 0 and height == 0:
            return io.NodeOutput(image)
        old_height, old_width = image.shape[1:3]
        width = width or max(1, round(old_width * height / old_height))
        height = height or max(1, round(old_height * width / old_width))
        return io.NodeOutput(resize(image, width, height, upscale_method, crop))


def _size(input_id: str) -> io.Int.Input:
    return io.Int.Input(
        input_id, default=512, min=0, max=MAX_RESOLUTION, step=1, tooltip="In pixels; 0 keeps the proportions."
    )


class ImageBatch(io.ComfyNode):
    """ComfyUI's Batch Images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="ImageBatch",
            display_name="Batch Images (DEPRECATED)",
            category="image/batch",
            description="Joins images to a batch; the second take the size of the first.",
            is_deprecated=True,
            search_aliases=["combine images", "merge images", "stack images"],
            inputs=[
                io.Image.Input("image1", tooltip="The images that come first."),
                io.Image.Input("image2", tooltip="The images that follow."),
            ],
            outputs=[io.Image.Output(tooltip="The batch.")],
        )

    @classmethod
    def execute(cls, image1: Tensor, image2: Tensor) -> io.NodeOutput:
        """Join; a missing alpha channel is opaque."""
        channels = max(image1.shape[-1], image2.shape[-1])
        image1, image2 = (F.pad(image, (0, channels - image.shape[-1]), value=1.0) for image in (image1, image2))
        if image1.shape[1:] != image2.shape[1:]:
            image2 = resize(image2, image1.shape[2], image1.shape[1], "bilinear", "center")
        return io.NodeOutput(torch.cat([image1, image2]))


class ImageCompositeMasked(io.ComfyNode):
    """ComfyUI's Image Composite Masked."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="ImageCompositeMasked",
            display_name="Image Composite Masked",
            category="image/compositing",
            description="Pastes one image over another, where a mask is white.",
            search_aliases=["overlay", "layer", "paste image", "images composition"],
            inputs=[
                io.Image.Input("destination", tooltip="The image below."),
                io.Image.Input("source", tooltip="The image that is pasted over it."),
                io.Int.Input("x", default=0, min=0, max=MAX_RESOLUTION, tooltip="Position of its left edge, in px."),
                io.Int.Input("y", default=0, min=0, max=MAX_RESOLUTION, tooltip="Position of its top edge, in px."),
                io.Boolean.Input("resize_source", default=False, tooltip="Whether it takes the size of the one below."),
                io.Mask.Input("mask", optional=True, tooltip="1 where the upper image shows; takes its size."),
            ],
            outputs=[io.Image.Output(tooltip="Both.")],
        )

    @classmethod
    def execute(
        cls, destination: Tensor, source: Tensor, x: int, y: int, resize_source: bool, mask: Tensor | None = None
    ) -> io.NodeOutput:
        """Blend; what is outside the image below is cut off."""
        below = destination.movedim(-1, 1).clone()
        above = F.pad(source, (0, max(0, below.shape[1] - source.shape[-1])), value=1.0)
        above = above[..., : below.shape[1]].movedim(-1, 1)
        if resize_source:
            above = F.interpolate(above, size=below.shape[-2:], mode="bilinear")
        show = torch.ones_like(above[:1, :1]) if mask is None else mask.reshape(-1, 1, *mask.shape[-2:])
        show = F.interpolate(show, size=above.shape[-2:], mode="bilinear")
        above, show = (_to_batch(part, len(below)) for part in (above, show))
        under = below[..., y : y + above.shape[-2], x : x + above.shape[-1]]
        height, width = under.shape[-2:]
        under.lerp_(above[..., :height, :width], show[..., :height, :width].to(under))
        return io.NodeOutput(below.movedim(1, -1))


def _to_batch(x: Tensor, count: int) -> Tensor:
    """Return the first `count` samples, beginning again where there are fewer."""
    return x[torch.arange(count) % len(x)]


class SaveImage(io.ComfyNode):
    """ComfyUI's Save Image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="SaveImage",
            display_name="Save Image",
            category="image",
            description="Saves images as PNG files that carry their graph.",
            is_output_node=True,
            search_aliases=["save", "save image", "export image", "output image", "write image", "download"],
            inputs=[
                io.Image.Input("images", tooltip="The images."),
                io.String.Input(
                    "filename_prefix",
                    default="ComfyUI",
                    tooltip="The beginning of the files' names; may hold a folder and %width%, %year% and the like.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The same images.")],
        )

    @classmethod
    def execute(cls, images: Tensor, filename_prefix: str) -> io.NodeOutput:
        """Save them in the output folder."""
        return io.NodeOutput(images, ui=ui.ImageSaveHelper.get_save_images_ui(images, filename_prefix, cls))

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        """Return whether the files stay in the output folder."""
        return stays_inside(filename_prefix)


class PreviewImage(io.ComfyNode):
    """ComfyUI's Preview Image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="PreviewImage",
            display_name="Preview Image",
            category="image",
            description="Shows images without keeping them.",
            is_output_node=True,
            search_aliases=["preview", "preview image", "show image", "view image", "display image", "image viewer"],
            inputs=[io.Image.Input("images", tooltip="The images.")],
            outputs=[io.Image.Output(display_name="images", tooltip="The same images.")],
        )

    @classmethod
    def execute(cls, images: Tensor) -> io.NodeOutput:
        """Save them in the temporary folder."""
        return io.NodeOutput(images, ui=ui.PreviewImage(images, cls=cls))


NODES: list[type[io.ComfyNode]] = [
    LoadImage,
    LoadImageMask,
    ImageScale,
    ImageBatch,
    ImageCompositeMasked,
    SaveImage,
    PreviewImage,
]
