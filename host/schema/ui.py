"""Drop-in replacement for `comfy_api.latest.ui`: what a node shows or saves."""

from __future__ import annotations

import json
import random
import string
from io import BytesIO
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...files.writing import create_series
from .. import folder_paths
from .inputs import FolderType
from .node import ComfyNode

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo


BAND = 256
"""Rows of an image that are converted at once."""


class SavedResult(dict[str, str]):
    """A saved file in the form that the interface uses: filename, subfolder, type."""

    def __init__(self, filename: str, subfolder: str, type: FolderType) -> None:
        super().__init__(filename=filename, subfolder=subfolder, type=type.value)


class SavedImages:
    """Saved images."""

    def __init__(self, results: list[SavedResult], is_animated: bool = False) -> None:
        self.results = results
        self.is_animated = is_animated

    def as_dict(self) -> dict[str, Any]:
        """Return the lists for the interface."""
        return {"images": self.results} | ({"animated": (True,)} if self.is_animated else {})


class ImageSaveHelper:
    """Saves PNG files with their graph as metadata."""

    @staticmethod
    def save_images(
        images: Tensor,
        filename_prefix: str,
        folder_type: FolderType,
        cls: type[ComfyNode] | None,
        compress_level: int = 4,
    ) -> list[SavedResult]:
        """Save each image as `<prefix>_<number>_.png`; "%batch_num%" in the prefix becomes its place in the batch.

        Args:
            images: (B, H, W, 3 or 4), 0..1; values outside are clipped, and the byte is 255 * value, truncated.
            folder_type: output, or temp for previews.
            cls: the node, whose hidden `prompt` and `extra_pnginfo` go into text chunks.

        Raises:
            ValueError: the prefix leads out of the folder.
            OSError: the folder cannot be written.
        """
        root = folder_paths.get_directory_by_type(folder_type.value) or ""
        height, width = images.shape[1:3]
        folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, root, width, height)
        metadata = _png_metadata(cls)
        files = (_png(image, metadata, compress_level) for image in images)
        names = create_series(folder, stem, ".png", files, number)
        return [SavedResult(name, subfolder, folder_type) for name in names]

    @staticmethod
    def get_save_images_ui(
        images: Tensor, filename_prefix: str, cls: type[ComfyNode] | None, compress_level: int = 4
    ) -> SavedImages:
        """Save images in the output folder; return them for the `ui` of a node's output."""
        return SavedImages(ImageSaveHelper.save_images(images, filename_prefix, FolderType.output, cls, compress_level))


def _png(image: Tensor, metadata: PngInfo | None, compress_level: int) -> bytes:
    file = BytesIO()
    _to_pil(image).save(file, "PNG", pnginfo=metadata, compress_level=compress_level)
    return file.getvalue()


def _to_pil(image: Tensor) -> Image.Image:
    from PIL import Image

    levels = torch.empty(image.shape, dtype=torch.uint8)
    # In bands: the floats of a large image take gigabytes.
    for band, rows in zip(levels.split(BAND), image.split(BAND), strict=True):
        scaled = 255.0 * rows.float().cpu()
        refuse_nan(scaled)
        band.copy_(scaled.clamp_(0, 255).byte())
    return Image.fromarray(levels.numpy())


def refuse_nan(image: Tensor) -> None:
    """Raise ValueError where values of an image are not numbers: a file would show them as black."""
    if image.isnan().any():
        raise ValueError("the image has values that are not numbers (NaN); use --dtype fp32, or another model or VAE")


def _png_metadata(cls: type[ComfyNode] | None) -> PngInfo | None:
    from PIL.PngImagePlugin import PngInfo

    if cls is None:
        return None
    metadata = PngInfo()
    if cls.hidden.prompt:
        metadata.add_text("prompt", json.dumps(cls.hidden.prompt))
    for key, value in (cls.hidden.extra_pnginfo or {}).items():
        metadata.add_text(key, json.dumps(value))
    return metadata


class PreviewImage:
    """Images shown on a node, saved in the temporary folder."""

    def __init__(self, image: Tensor, animated: bool = False, cls: type[ComfyNode] | None = None) -> None:
        prefix = "ComfyUI_temp_" + "".join(random.choices(string.ascii_lowercase, k=5))
        self.values = ImageSaveHelper.save_images(image, prefix, FolderType.temp, cls, compress_level=1)
        self.animated = animated

    def as_dict(self) -> dict[str, Any]:
        """Return the lists for the interface."""
        return {"images": self.values, "animated": (self.animated,)}


class PreviewText:
    """Text shown on a node."""

    def __init__(self, value: str) -> None:
        self.value = value

    def as_dict(self) -> dict[str, Any]:
        """Return the lists for the interface."""
        return {"text": (self.value,)}
