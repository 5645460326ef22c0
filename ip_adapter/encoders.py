"""Image encoders (a host's CLIP_VISION): which one an adapter needs, and which files hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..weights.files import DOWNLOAD, damage, first_shard, shapes
from .formats import Adapter


class Published(NamedTuple):
    """An image encoder as it is published.

    Attributes:
        name: of the network.
        file: where it is published, repository first.
        size: of that file in bytes.
        positions: of its table of positions, which tells resolutions apart.
    """

    name: str
    file: str
    size: int
    positions: int = 257


VIT_H = Published("CLIP ViT-H", "h94/IP-Adapter models/image_encoder/model.safetensors", 2_528_373_448)
BIG_G = Published("CLIP ViT-bigG", "h94/IP-Adapter sdxl_models/image_encoder/model.safetensors", 3_689_912_664)
VIT_L = Published("CLIP ViT-L", "openai/clip-vit-large-patch14 model.safetensors", 1_710_540_580)
VIT_L_336 = Published(
    "CLIP ViT-L at 336 px", "Kwai-Kolors/Kolors-IP-Adapter-Plus image_encoder/pytorch_model.bin", 1_711_974_081, 577
)
SIGLIP = Published(
    "SigLIP so400m", "Comfy-Org/sigclip_vision_384 sigclip_vision_patch14_384.safetensors", 856_505_640, 729
)
_NEEDED = {
    ("base", 1024): VIT_H,
    ("base", 1280): BIG_G,
    ("base", 768): VIT_L,
    ("patches", 1280): VIT_H,
    ("patches", 1664): BIG_G,
    ("patches", 1024): VIT_L_336,
    ("patches", 1152): SIGLIP,
}
"""By what an adapter reads, and its width. Of CLIP ViT-L, XLabs' adapters take the one for 224 px, Kolors' that for
336 px; one network is not the other, though all widths are the same."""

_PROJECTIONS = {"visual_projection.weight": (0, 1), "visual.proj": (1, 0)}
"""Keys of the encoder's projection in both layouts, and the axes that are (embedding, patch) wide."""

_POSITIONS = tuple(f"{prefix}embeddings.position_embedding.weight" for prefix in ("vision_model.", ""))
"""Keys of encoders without projection, such as SigLIP's, in files and in transformers: (positions, width)."""

_PLACES = (*_POSITIONS, "visual.positional_embedding")
"""Keys of the positions in all layouts, (positions, width)."""

_FAMILIES = (
    ("layer_scale1.lambda1", "DINOv2"),
    ("mlp.gate_proj.", "DINOv3"),
    ("attention.o_proj.", "DINOv3"),
    ("q_bias", "EVA-CLIP"),
    ("patch_embed.", "a network of timm"),
    ("text_model.", "a text encoder"),
    ("encoder.block.", "a text encoder"),
    ("double_blocks.", "a diffusion model"),
    ("diffusion_model.", "a checkpoint"),
    ("to_k_ip", "an IP-Adapter"),
)
"""Parts of keys of what is no image encoder for adapters, and its name."""


class EncoderShape(NamedTuple):
    """What of an image encoder tells it from others.

    Attributes:
        embedding: width of its embeddings, 0 when it has none.
        patch: width of its patches.
        positions: 1 and its patches; None where the file does not say.
    """

    embedding: int
    patch: int
    positions: int | None


def needed(adapter: Adapter) -> str:
    """Return the encoder that an adapter needs, and where to get it, in words."""
    what = "embeddings" if adapter.kind == "base" else "patches"
    found = _published(adapter)
    if found is None:
        return f"an image encoder with {what} of width {adapter.features}"
    return f"{found.name} ({what} of width {adapter.features}; published as {found.file}, {found.size:,} bytes)"


def _published(adapter: Adapter) -> Published | None:
    return _NEEDED.get(("base" if adapter.kind == "base" else "patches", adapter.features))


def fits(adapter: Adapter, shape: EncoderShape) -> bool:
    """Return whether an encoder has the widths that an adapter reads."""
    return shape[0 if adapter.kind == "base" else 1] == adapter.features


def shape_of(weights: Mapping[str, Iterable[int]]) -> EncoderShape | None:
    """Return the shape of an encoder by the shapes of its weights, None for one that is neither CLIP's nor SigLIP's."""
    place = next((key for key in _PLACES if key in weights), None)
    positions = None if place is None else tuple(weights[place])
    key = next((key for key in _PROJECTIONS if key in weights), None)
    if key is not None:
        embedding, patch = (tuple(weights[key])[axis] for axis in _PROJECTIONS[key])
        return EncoderShape(embedding, patch, positions[0] if positions else None)
    return EncoderShape(0, positions[1], positions[0]) if positions and place in _POSITIONS else None


def choose_encoder(adapter: Adapter, names: Iterable[str], full_path: Callable[[str], str]) -> str:
    """Return the name of the first file that holds the adapter's encoder, whatever it is called.

    Files of folders are among the names; of an encoder in several files, the first one stands for all.

    Args:
        adapter: the adapter.
        names: of the files in models/clip_vision.
        full_path: from a name to a path.

    Raises:
        ValueError: there is none; the message names the encoder to get, and what was found.
    """
    paths = {name: Path(full_path(name)) for name in names}
    paths = {name: path for name, path in paths.items() if path.suffix != ".json" and first_shard(path) == path}
    read = {name: shapes(path) for name, path in paths.items()}
    found = {name: shape_of(weights) for name, weights in read.items()}
    published = _published(adapter)
    for name, shape in found.items():
        right = published is None or shape is None or shape.positions in (None, published.positions)
        if shape is not None and fits(adapter, shape) and right:
            return name
    seen = ", ".join(f"{name} ({_seen(paths[name], read[name], found[name])})" for name in paths)
    raise ValueError(
        f"{adapter.name} needs {needed(adapter)}, but models/clip_vision has {seen or 'no files'}; put it there, or "
        "connect it to encoder."
    )


def _seen(path: Path, weights: Mapping[str, Any], shape: EncoderShape | None) -> str:
    if shape is not None:
        return _words(shape)
    found = damage(path) if path.is_file() else None
    if found:
        return f"cannot be read; {DOWNLOAD}: {found}"
    return _family(weights) if weights else "not read by auto; choose it in clip_vision if it is the one"


def _words(shape: EncoderShape) -> str:
    embeddings = f"embeddings of width {shape.embedding}" if shape.embedding else "no embeddings"
    places = "" if shape.positions is None else f", {shape.positions} positions"
    return f"{embeddings}, patches of width {shape.patch}{places}"


def _family(weights: Iterable[str]) -> str:
    """Name what weights belong to that are neither CLIP's nor SigLIP's image encoder."""
    keys = list(weights)
    return next((name for part, name in _FAMILIES if any(part in key for key in keys)), "of another family")


def check_encoder(adapter: Adapter, encoder: Any, name: str) -> None:
    """Raise ValueError when a CLIP_VISION is not the one that an adapter was trained with."""
    weights = {key: tensor.shape for key, tensor in encoder.model.state_dict().items()}
    shape = shape_of(weights)
    if shape is None:
        raise ValueError(
            f"{adapter.name} needs {needed(adapter)}, but {name} is {_family(weights)}, neither CLIP's image encoder "
            "nor SigLIP's; choose the right one from models/clip_vision."
        )
    if not fits(adapter, shape):
        raise ValueError(
            f"{adapter.name} needs {needed(adapter)}, but {name} has {_words(shape)}; choose the right one from "
            "models/clip_vision."
        )
