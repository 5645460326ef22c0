"""ComfyUI's core nodes that save latents, text, and images in other formats, and load latents."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...files.writing import create, create_series
from ...weights.files import read_safetensors
from .. import folder_paths
from ..schema import io
from ..schema.declare import Nodes, choice, heed
from ..schema.inputs import FolderType
from ..schema.ui import SavedResult, refuse_nan

NODES = Nodes("image")
OLD_SCALE = 0.18215
"""Latents in files without a version are scaled by Stable Diffusion 1's factor."""

PNG = b"\x89PNG\r\n\x1a\n"
COLOR_TYPES = {1: 0, 3: 2, 4: 6}
"""What PNG calls grey, RGB and RGBA, by channels."""

DEPTHS = {"8-bit": 8, "16-bit": 16}
HIDDEN = [io.Hidden.prompt, io.Hidden.extra_pnginfo]


def save_all(prefix: str, ending: str, contents: Iterable[bytes], size: tuple[int, int] = (1, 1)) -> list[SavedResult]:
    """Save files `<prefix>_<number><ending>` in the output folder; "%batch_num%" in the prefix becomes their place.

    Args:
        prefix: folder and beginning of the names.
        ending: of the names.
        contents: of the files.
        size: width and height that the prefix may ask for.
    """
    root = folder_paths.get_output_directory()
    folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(prefix, root, *size)
    saved, numbers = [], itertools.count(number)
    for place, content in enumerate(contents):
        beginning = stem.replace("%batch_num%", str(place))
        names = (f"{beginning}_{each:05}{ending}" for each in numbers)
        saved.append(next(name for name in names if create(Path(folder) / name, content)))
    return [SavedResult(name, subfolder, FolderType.output) for name in saved]


def stays_inside(filename_prefix: str | None) -> bool:
    """Check, before anything runs, that files stay in the output folder; a linked prefix is checked when it is used.

    Raises:
        ValueError: the prefix leads out of the folder.
    """
    if filename_prefix is not None:
        folder_paths.split_prefix(filename_prefix, folder_paths.get_output_directory())
    return True


def metadata(hidden: io.HiddenHolder) -> dict[str, str]:
    """Return what files carry of the graph that made them."""
    prompt = {"prompt": json.dumps(hidden.prompt)} if hidden.prompt else {}
    return prompt | {name: json.dumps(value) for name, value in (hidden.extra_pnginfo or {}).items()}


@NODES(
    "SaveText",
    "Save Text",
    [
        io.String.Input("text", force_input=True, tooltip="The text."),
        io.String.Input("filename_prefix", default="ComfyUI"),
        choice("format", ["txt", "csv", "md", "json"], default="txt", tooltip="The ending; json is written readably."),
    ],
    [("text", io.String)],
    "text",
    is_output_node=True,
    validate=stays_inside,
    search_aliases=["save text", "write text", "export text"],
)
def save_text(text: str, filename_prefix: str, format: str) -> io.NodeOutput:
    """Save a text in the output folder."""
    content = _readable(text) if format == "json" else text
    saved = save_all(filename_prefix, f".{format}", [content.encode()])
    return io.NodeOutput(text, ui={"text": [text], "files": saved})


def _readable(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


@NODES(
    "SaveLatent",
    "Save Latent",
    [io.Latent.Input("samples"), io.String.Input("filename_prefix", default="latents/ComfyUI")],
    [("samples", io.Latent)],
    "model/latent",
    is_output_node=True,
    hidden=HIDDEN,
    validate=stays_inside,
    search_aliases=["export latent"],
)
def save_latent(samples: dict[str, Any], filename_prefix: str, hidden: io.HiddenHolder) -> io.NodeOutput:
    """Save latents in the output folder."""
    from safetensors.torch import save

    content = {"latent_tensor": samples["samples"].contiguous(), "latent_format_version_0": torch.tensor([])}
    root = folder_paths.get_output_directory()
    folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, root)
    names = create_series(folder, stem, ".latent", [save(content, {"prompt": "", **metadata(hidden)})], number)
    saved = [SavedResult(name, subfolder, FolderType.output) for name in names]
    return io.NodeOutput(samples, ui={"latents": saved})


def _latent_files() -> list[io.Input]:
    folder = folder_paths.get_input_directory()
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = folder_paths.FileNames(sorted(name for name in names if name.endswith(".latent")))
    return [choice("latent", found, tooltip="The file in the input folder.")]


def _is_there(latent: str) -> bool | str:
    if folder_paths.exists_annotated_filepath(latent):
        return True
    return f"latent {latent} is not in {folder_paths.get_input_directory()}; put it there, or name another file"


def _digest(latent: str) -> str:
    return hashlib.sha256(Path(folder_paths.get_annotated_filepath(latent)).read_bytes()).hexdigest()


@NODES(
    "LoadLatent",
    "Load Latent",
    _latent_files,
    [io.Latent],
    "model/latent",
    validate=_is_there,
    fingerprint=_digest,
    search_aliases=["import latent", "open latent"],
)
def load_latent(latent: str) -> dict[str, Any]:
    """Load latents that were saved."""
    path = folder_paths.get_annotated_filepath(latent)
    content = read_safetensors(Path(path))
    if "latent_tensor" not in content:
        raise ValueError(f"{latent} holds no latents, expected a file that Save Latent wrote")
    scale = 1.0 if "latent_format_version_0" in content else 1.0 / OLD_SCALE
    return {"samples": content["latent_tensor"].float() * scale}


def _space(*options: str) -> io.Combo.Input:
    return choice("input_color_space", options, default=options[0], advanced=True, tooltip="Of the images.")


def _bits(*options: str) -> io.Combo.Input:
    return choice("bit_depth", options, default=options[0], advanced=True, tooltip="Of each channel.")


def _can_be_saved(format: dict[str, Any], filename_prefix: str | None = None) -> bool | str:
    if format["format"] != "png":
        return f"format {format['format']} is not written here; choose png, or run it in ComfyUI (--engine)"
    return stays_inside(filename_prefix)


@NODES(
    "SaveImageAdvanced",
    "Save Image (Advanced)",
    [
        io.Image.Input("images"),
        io.String.Input("filename_prefix", default="ComfyUI"),
        io.DynamicCombo.Input(
            "format",
            [
                io.DynamicCombo.Option("png", [_bits(*DEPTHS), _space("sRGB")]),
                io.DynamicCombo.Option("exr", [_bits("32-bit float"), _space("sRGB", "HDR", "linear")]),
            ],
            tooltip="The kind of file.",
        ),
    ],
    [("images", io.Image)],
    is_output_node=True,
    hidden=HIDDEN,
    validate=_can_be_saved,
    search_aliases=["save", "save image", "export image", "output image", "write image"],
)
def save_images(images: Tensor, filename_prefix: str, format: dict[str, Any], hidden: io.HiddenHolder) -> io.NodeOutput:
    """Save images with 8 or 16 bits a channel."""
    heed(_can_be_saved(format))
    texts = metadata(hidden)
    files = (encode_png(image, DEPTHS[format["bit_depth"]], texts) for image in images)
    size = images.shape[2], images.shape[1]
    return io.NodeOutput(images, ui={"images": save_all(filename_prefix, ".png", files, size)})


def encode_png(image: Tensor, bits: int, texts: dict[str, str]) -> bytes:
    """Return an image (H, W, C) in 0..1 as a PNG file of 8 or 16 bits a channel, which Pillow does not write for RGB.

    Raises:
        ValueError: it is not of 1, 3 or 4 channels, or has values that are not numbers.
    """
    height, width, channels = image.shape
    if channels not in COLOR_TYPES:
        raise ValueError(f"the images have {channels} channels, expected 1, 3 or 4")
    refuse_nan(image)
    top = 2**bits - 1
    levels = (image.float().cpu() * top).clamp(0, top).int().numpy().astype(">u2" if bits == 16 else "u1")
    # Each row begins with its filter; 0 is none.
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, bits, COLOR_TYPES[channels], 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), *_texts(texts), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    return PNG + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _texts(texts: dict[str, str]) -> Iterator[bytes]:
    for name, value in texts.items():
        yield _chunk(b"tEXt", name.encode("latin-1", "replace") + b"\0" + value.encode("latin-1", "replace"))
