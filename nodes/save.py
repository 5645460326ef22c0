"""The save node: PNG (of 8 or 16 bits), JPEG and WebP files, and the same as text."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from torch import Tensor

from ..contract import folder_paths, io, saves_metadata, ui
from ..files.writing import create_series
from .checks import verdict
from .file_names import check_prefix

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
DEEP = "png16"
SUFFIXES = {"jpeg": ".jpg", "webp": ".webp", DEEP: ".png"}
PNG_COLOURS = {1: 0, 3: 2, 4: 6}


def encode(image: Tensor, kind: str, quality: int) -> bytes:
    """The file of a picture.

    Args:
        image: (H, W, 3 or 4), 0..1; JPEG leaves transparency out.
        kind: a key of FORMATS.
        quality: 1..100, of JPEG and WebP; WebP at 100 loses nothing.
    """
    from PIL import Image

    picture = Image.fromarray((255.0 * image.float().cpu()).clamp(0, 255).byte().numpy())
    file = BytesIO()
    options: dict[str, Any] = {"lossless": quality == 100} if kind == "webp" else {}
    (picture.convert("RGB") if kind == "jpeg" else picture).save(file, FORMATS[kind], quality=quality, **options)
    return file.getvalue()


def encode_deep(image: Tensor, texts: Mapping[str, str]) -> bytes:
    """The PNG file of a picture with 16 bits a channel, which Pillow reads but does not write in colour.

    Args:
        image: (H, W, 1, 3 or 4), 0..1; the value is 65535 * value, rounded.
        texts: text chunks by keyword.
    """
    from PIL.PngImagePlugin import PngInfo, putchunk

    levels = (65535.0 * image.double().cpu()).round().clamp(0, 65535).numpy().astype(">u2")
    height, width, channels = levels.shape
    rows = levels.reshape(height, -1).view(np.uint8)
    rises = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    file = BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    putchunk(file, b"IHDR", struct.pack(">2I5B", width, height, 16, PNG_COLOURS[channels], 0, 0, 0))
    for chunk in info.chunks:
        putchunk(file, *chunk[:2])
    filtered = np.insert(rises, 0, 2, axis=1)  # PNG's filter 2: each byte less the one above it
    putchunk(file, b"IDAT", zlib.compress(filtered.tobytes(), 6))
    putchunk(file, b"IEND", b"")
    return file.getvalue()


def data_url(content: bytes, kind: str) -> str:
    """A picture's file as text."""
    return f"data:image/{'png' if kind == DEEP else kind};base64,{base64.b64encode(content).decode()}"


class TesseraSaveImage(io.ComfyNode):
    """Saves pictures in the format that is asked for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSaveImage",
            display_name="Save Image As",
            category="Tessera/image",
            description="Saves pictures as PNG, JPEG or WebP, and gives them as text for web pages and services.",
            search_aliases=[
                "save jpeg",
                "save jpg",
                "save webp",
                "base64",
                "data url",
                "export image",
                "16 bit png",
                "save normal map",
                "save height map",
            ],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The pictures."),
                io.String.Input(
                    "filename_prefix",
                    default="tessera",
                    optional=True,
                    tooltip="The beginning of the files' names; may hold a folder and %width%, %year% and the like.",
                ),
                io.Combo.Input(
                    "format",
                    options=[*FORMATS, DEEP],
                    default="png",
                    optional=True,
                    tooltip="png has 8 bits a channel and carries the workflow, png16 has 16 (for heights, normals) "
                    "and carries it, too; jpeg and webp are smaller.",
                ),
                io.Int.Input(
                    "quality",
                    default=90,
                    min=1,
                    max=100,
                    optional=True,
                    tooltip="Of jpeg and webp; webp at 100 loses nothing.",
                ),
                io.Boolean.Input(
                    "base64",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Whether to give the pictures as text, too.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="data_urls",
                    is_output_list=True,
                    tooltip="A data URL for each picture; nothing where base64 is off.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        filename_prefix: str = "tessera",
        format: str = "png",  # noqa: A002 - what users read
        quality: int = 90,
        base64: bool = False,
    ) -> io.NodeOutput:
        """Save, and encode once more only where text is wanted of PNG files."""
        check_prefix(filename_prefix)
        if format == "png":
            shown = ui.ImageSaveHelper.get_save_images_ui(images, filename_prefix, cls)
            urls = [data_url(encode(image, format, quality), format) for image in images] if base64 else []
            return io.NodeOutput(urls, ui=shown)
        if format == DEEP:
            files = [encode_deep(image, _graphs(cls.hidden)) for image in images]
        else:
            files = [encode(image, format, quality) for image in images]
        urls = [data_url(file, format) for file in files] if base64 else []
        return io.NodeOutput(urls, ui=_save(files, filename_prefix, SUFFIXES[format], *images.shape[1:3]))

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = "tessera") -> bool | str:
        """Check the files' names."""
        return verdict(cls, {"filename_prefix": filename_prefix}, (check_prefix, ["filename_prefix"]))


def _graphs(hidden: Any) -> dict[str, str]:
    """The graphs that the host hands to nodes that save, as ComfyUI names them in a PNG."""
    graphs = {"prompt": hidden.prompt} | (hidden.extra_pnginfo or {}) if saves_metadata() else {}
    return {name: json.dumps(graph) for name, graph in graphs.items() if graph}


def _save(files: list[bytes], prefix: str, suffix: str, height: int, width: int) -> Any:
    """Write files into the output folder under the next free numbers."""
    root = folder_paths.get_output_directory()
    folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(prefix, root, width, height)
    names = create_series(folder, stem, suffix, files, number)
    return ui.SavedImages([ui.SavedResult(name, subfolder, io.FolderType.output) for name in names])
