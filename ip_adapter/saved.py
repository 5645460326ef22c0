"""References as files: keys and values in half precision, with the adapter they belong to."""

from __future__ import annotations

from pathlib import Path

import torch

from ..weights.files import DOWNLOAD, read_described, reading
from .reference import Reference

SUFFIX = ".reference.safetensors"
FORMAT = "tessera-reference-1"
"""Value of `format` in the metadata."""

REMEDY = f"{DOWNLOAD}, or save the reference again"


def encode_reference(reference: Reference) -> bytes:
    """Return a reference as the content of a file, in float16.

    Raises:
        ValueError: its keys and values change with the noise level.
    """
    from safetensors.torch import save

    if reference.timed is not None:
        raise ValueError(
            f"{reference.name} makes keys and values anew at every step, so there are none to save; connect the image "
            "to an Image Prompt node."
        )

    tensors = {f"{n}.{part}": pair[i] for n, pair in reference.keys_values.items() for i, part in enumerate("kv")}
    # The names of the first version: files that users have stay readable.
    about = {"mark": reference.fingerprint, "name": reference.name}
    about |= {"format": FORMAT, "width": str(reference.width), "sites": str(reference.layer_count)}
    about |= {"joint": "1"} if reference.joint else {}
    return save({key: tensor.to(torch.float16).contiguous() for key, tensor in tensors.items()}, about)


def load_reference(path: Path) -> Reference:
    """Read a reference.

    Raises:
        ValueError: the file is not a reference, or its values are not finite.
    """
    stored, about = read_described(path, REMEDY)
    tensors = {key: tensor.float() for key, tensor in stored.items()}
    if about.get("format") != FORMAT:
        raise ValueError(f"{path.name} is not a saved reference of Tessera; make one with Save Reference.")
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError(f"{path.name} has values that are not finite; save the reference again.")
    with reading(path, REMEDY):
        numbers = sorted({int(key.split(".")[0]) for key in tensors})
        keys_values = {n: (tensors[f"{n}.k"], tensors[f"{n}.v"]) for n in numbers}
        found = int(about["width"]), int(about["sites"]), about["mark"], about["name"], "joint" in about
        return Reference(keys_values, *found)


def find_references(folder: Path) -> list[str]:
    """Find saved references in a folder and below it, as paths relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*" + SUFFIX))
