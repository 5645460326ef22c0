"""The save node: PNG (of 8 or 16 bits), JPEG and WebP files, and the same as text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from ..contract import folder_paths, io, saves_metadata, ui
from ..files.writing import create_series
from ..images.encoding import FORMATS, data_url, encode
from .checks import verdict
from .file_names import check_prefix
from .shown import coloured


class TesseraSaveImage(io.ComfyNode):
    """Saves images in the format of choice."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSaveImage",
            display_name="Save Image As",
            category="Tessera/image",
            description="Saves images as PNG, JPEG or WebP, and returns them as text for web pages and services.",
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
                io.Image.Input("images", tooltip="The images."),
                io.String.Input(
                    "filename_prefix",
                    default="tessera",
                    optional=True,
                    tooltip="Beginning of the file names; may contain a folder, %width%, %year% and so on.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="png",
                    optional=True,
                    tooltip="png (8 bits a channel) and png16 (16 bits, for height and normal maps) carry the "
                    "workflow; jpeg and webp are smaller.",
                ),
                io.Int.Input(
                    "quality",
                    default=90,
                    min=1,
                    max=100,
                    optional=True,
                    tooltip="Of jpeg and webp; webp at 100 is lossless.",
                ),
                io.Boolean.Input(
                    "base64",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Also return the images as text.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="data_urls",
                    is_output_list=True,
                    tooltip="A data URL for each image; nothing where base64 is off.",
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
        """Save them; of PNG files, which the host writes, text is encoded once more."""
        check_prefix(filename_prefix)
        texts = _graphs(cls.hidden)
        files = [encode(image, format, quality, texts) for image in images] if base64 or format != "png" else []
        if format == "png":
            shown = ui.ImageSaveHelper.get_save_images_ui(coloured(images), filename_prefix, cls)
        else:
            shown = _save(files, filename_prefix, FORMATS[format].suffix, *images.shape[1:3])
        return io.NodeOutput([data_url(file, format) for file in files] if base64 else [], ui=shown)

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = "tessera") -> bool | str:
        """Check the files' names."""
        return verdict(cls, {"filename_prefix": filename_prefix}, (check_prefix, ["filename_prefix"]))


def _graphs(hidden: Any) -> dict[str, str]:
    """Return the graphs that the host gives to nodes that save, under the names that ComfyUI uses in a PNG."""
    graphs = {"prompt": hidden.prompt} | (hidden.extra_pnginfo or {}) if saves_metadata() else {}
    return {name: json.dumps(graph) for name, graph in graphs.items() if graph}


def _save(files: Iterable[bytes], prefix: str, suffix: str, height: int, width: int) -> Any:
    """Write files into the output folder under the next free numbers; return what the interface shows."""
    root = folder_paths.get_output_directory()
    folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(prefix, root, width, height)
    names = create_series(folder, stem, suffix, files, number)
    return ui.SavedImages([ui.SavedResult(name, subfolder, io.FolderType.output) for name in names])
