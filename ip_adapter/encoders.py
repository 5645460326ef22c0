"""Image encoders (a host's CLIP_VISION): which one an adapter needs, and which files hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..weights.files import DOWNLOAD, damage, read_shapes
from .formats import Adapter

_NAMES = {
    ("base", 1024): "CLIP ViT-H",
    ("base", 1280): "CLIP ViT-bigG",
    ("base", 768): "CLIP ViT-L",
    ("patches", 1280): "CLIP ViT-H",
    ("patches", 1664): "CLIP ViT-bigG",
    ("patches", 1024): "CLIP ViT-L",
    ("patches", 1152): "SigLIP so400m",
}
_PROJECTIONS = {"visual_projection.weight": (0, 1), "visual.proj": (1, 0)}
"""Keys of the encoder's projection in both layouts, and the axes that are (embedding, patch) wide."""

_POSITIONS = "vision_model.embeddings.position_embedding.weight"
"""A key of encoders without projection, such as SigLIP's; (positions, width of a patch)."""

_PLACES = (_POSITIONS, "visual.positional_embedding")
"""Keys of the positions in both layouts, (positions, width)."""

_COUNTS = {("base", 768): 257, ("patches", 1024): 577}
"""Positions of CLIP ViT-L, by what is read of it: XLabs' adapters take the one for 224 px, Kolors' that for 336 px."""

Widths = tuple[int, int]
"""Width of an encoder's embeddings, 0 when it has none, and of its patches."""


def needed(adapter: Adapter) -> str:
    """Return the encoder that an adapter needs, in words."""
    what = "embeddings" if adapter.kind == "base" else "patches"
    return f"{_NAMES.get(_read_by(adapter), 'an image encoder')} ({what} of width {adapter.features})"


def _read_by(adapter: Adapter) -> tuple[str, int]:
    return "base" if adapter.kind == "base" else "patches", adapter.features


def fits(adapter: Adapter, widths: Widths) -> bool:
    """Return whether an encoder of these widths is the adapter's."""
    return widths[0 if adapter.kind == "base" else 1] == adapter.features


def encoder_widths(encoder: Any) -> Widths | None:
    """Return the widths of a CLIP_VISION, None for one that is neither CLIP's nor SigLIP's, such as DINOv2."""
    weights = encoder.model.state_dict()
    if "visual_projection.weight" in weights:
        embedding, patch = weights["visual_projection.weight"].shape
        return embedding, patch
    return (0, weights[_POSITIONS].shape[-1]) if _POSITIONS in weights else None


def file_widths(path: Path) -> Widths | None:
    """Read the widths of an image encoder from the header of a safetensors file, or of one in a folder; else None."""
    shapes = _shapes(path)
    key = next((key for key in _PROJECTIONS if key in shapes), None)
    if key is None:
        return (0, shapes[_POSITIONS][-1]) if _POSITIONS in shapes else None
    embedding, patch = _PROJECTIONS[key]
    return shapes[key][embedding], shapes[key][patch]


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of an image encoder's weights; none of a file that is broken."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or files[0].suffix != ".safetensors":
        return {}
    try:
        return read_shapes(files[0])
    except ValueError:
        return {}


def choose_encoder(adapter: Adapter, names: Iterable[str], full_path: Callable[[str], str]) -> str:
    """Return the name of the first file that holds the adapter's encoder; of several, of one for its resolution.

    Args:
        adapter: the adapter.
        names: of the files in models/clip_vision.
        full_path: from a name to a path.

    Raises:
        ValueError: there is none; the message names the encoder to get, and what was found.
    """
    found = {name: file_widths(Path(full_path(name))) for name in names}
    fitting = [name for name, widths in found.items() if widths is not None and fits(adapter, widths)]
    if fitting:
        count = _COUNTS.get(_read_by(adapter))
        return next((name for name in fitting if _positions(Path(full_path(name))) == count), fitting[0])
    seen = ", ".join(f"{name} ({_seen(Path(full_path(name)), widths)})" for name, widths in found.items())
    raise ValueError(
        f"{adapter.name} needs {needed(adapter)}, but models/clip_vision has {seen or 'no files'}; put it there, or "
        "connect it to encoder."
    )


def _positions(path: Path) -> int | None:
    shapes = _shapes(path)
    return next((shapes[key][0] for key in _PLACES if key in shapes), None)


def _seen(path: Path, widths: Widths | None) -> str:
    if widths is not None:
        return f"{widths[0]} and {widths[1]}"
    found = damage(path) if path.is_file() else None
    if found:
        return f"cannot be read; {DOWNLOAD}: {found}"
    return "not read by auto; choose it in clip_vision if it is the one"


def check_encoder(adapter: Adapter, encoder: Any, name: str) -> None:
    """Raise ValueError when a CLIP_VISION is not the one that an adapter was trained with."""
    widths = encoder_widths(encoder)
    if widths is None:
        raise ValueError(
            f"{adapter.name} needs {needed(adapter)}, but {name} is neither CLIP's image encoder nor SigLIP's; choose "
            "the right one from models/clip_vision."
        )
    if not fits(adapter, widths):
        embeddings = f"embeddings of width {widths[0]}" if widths[0] else "no embeddings"
        raise ValueError(
            f"{adapter.name} needs {needed(adapter)}, but {name} has {embeddings} and patches of width {widths[1]}; "
            "choose the right one from models/clip_vision."
        )
