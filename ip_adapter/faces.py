"""FaceID: a face as a 512-d ArcFace embedding from a file, instead of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..weights.files import DOWNLOAD, check, read_safetensors, reading
from . import projectors
from .formats import Adapter, Weights
from .layers import Layer

SIZE = 512
"""Width of a face embedding."""

FACE_SUFFIXES = (".npy", ".safetensors", ".txt")
LARGEST = 2**20
"""Bytes of the largest file that is read as an embedding."""

VERSIONS = ["auto", "plus", "plus v2"]
_V2 = ("plusv2", "plus-v2", "plus_v2", "plus v2")
_SLACK = 1e-3


@dataclass(frozen=True, eq=False)
class Face:
    """A face and how FaceID plus adapters use it.

    Attributes:
        embedding: (512,), as the recognition network gives it or normalised.
        version: one of VERSIONS; the weights of plus and plus v2 look alike, "auto" goes by the file's name.
        structure: how much plus v2 follows the image of the face.
    """

    embedding: Tensor
    version: str = "auto"
    structure: float = 1.0


def find_embeddings(folder: Path) -> list[str]:
    """Find files in a folder and below it that may hold embeddings, as paths relative to it."""
    found = (path for path in folder.rglob("*") if path.suffix in FACE_SUFFIXES and path.is_file())
    return sorted(
        path.relative_to(folder).as_posix() for path in found if not path.name.endswith("reference.safetensors")
    )


def read_embedding(path: Path) -> Tensor:
    """Read a face embedding (512,): an array of numpy, a tensor, or numbers as text.

    Raises:
        ValueError: the file holds something else, or more than one face.
    """
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes; expected the {SIZE} numbers of a face.")
    values = _READERS[path.suffix](path).float()
    if values.numel() != SIZE:
        raise ValueError(
            f"{path.name} holds {values.numel()} numbers in the shape {tuple(values.shape)}; expected the {SIZE} of "
            "one face, as ArcFace gives them."
        )
    if not torch.isfinite(values).all() or not values.any():
        raise ValueError(f"{path.name} holds no numbers or zeros alone; expected the {SIZE} numbers of a face.")
    return values.flatten()


def _numpy(path: Path) -> Tensor:
    import numpy as np

    with reading(path, f"{DOWNLOAD}, or save it with numpy.save"):
        return torch.from_numpy(np.load(path, allow_pickle=False).astype("float32"))


def _safetensors(path: Path) -> Tensor:
    tensors = read_safetensors(path, f"{DOWNLOAD}, or save it again")
    if len(tensors) != 1:
        raise ValueError(f"{path.name} holds {len(tensors)} tensors; expected one, of {SIZE} numbers.")
    return next(iter(tensors.values()))


def _text(path: Path) -> Tensor:
    check([path])
    parts = path.read_text("utf-8", errors="replace").translate(str.maketrans("[](),;", "      ")).split()
    try:
        return torch.tensor([float(part) for part in parts])
    except ValueError as error:
        raise ValueError(f"{path.name} holds more than numbers ({error}); expected {SIZE} of them.") from None


_READERS = {".npy": _numpy, ".safetensors": _safetensors, ".txt": _text}


def face_tokens(adapter: Adapter, face: Face, patches: Tensor | None) -> Tensor:
    """Compute the tokens of a face and of none (2, T, D), for an adapter of one of the kinds `formats.FACES`.

    Args:
        adapter: its projector makes the tokens.
        face: the face.
        patches: of an image of it and of the unconditional image (2, P, E), for FaceID plus.

    Raises:
        ValueError: the adapter needs embeddings that are not normalised, but this one is.
    """
    raw = adapter.kind == "face_raw"
    found = _raw(face.embedding, adapter.name) if raw else F.normalize(face.embedding, dim=-1)
    both = torch.stack([found, torch.zeros_like(found)])
    if raw:
        return projectors.plus(adapter.image_proj, both[:, None])
    if patches is None:
        return projectors.face(adapter.image_proj, both)
    # Kolors' adapter, which alone has tokens that its model projects, is of version 2 whatever its name.
    named = bool(adapter.made) or any(v in adapter.name.lower() for v in _V2)
    second = face.version == "plus v2" or (face.version == "auto" and named)
    return projectors.face_plus(adapter.image_proj, both, patches, face.structure if second else None)


def _raw(embedding: Tensor, name: str) -> Tensor:
    if abs(float(embedding.norm()) - 1) < _SLACK:
        raise ValueError(
            f"{name} reads embeddings as the recognition network gives them, but this one is normalised; save "
            "`embedding` instead of `normed_embedding`."
        )
    return embedding


def lora_of(adapter: Adapter, layers: list[Layer]) -> Weights:
    """Return the LoRA inside a FaceID file, named as in kohya's files; empty when it has none.

    Args:
        adapter: the adapter; its numbers count self-attentions (even) and cross-attentions (odd).
        layers: the UNet's cross-attentions.
    """
    names = {layer.number - 1: f"{layer.name}.attn1" for layer in layers} | {
        s.number: f"{s.name}.attn2" for s in layers
    }
    found = {}
    for (number, part, side), tensor in adapter.lora.items():
        path = f"{names[number]}.to_{part}" + (".0" if part == "out" else "")
        found[f"lora_unet_{path.replace('.', '_')}.lora_{side}.weight"] = tensor
    return found
