"""Tensors of safetensors files, read into memory of their own.

The library maps a file into memory instead, where a process dies without a word (SIGBUS) when the file is cut short
meanwhile, as by a download that begins again. Reading takes as long and no more memory than computing with every page
of a mapped file.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BufferedReader
from typing import TYPE_CHECKING, Any

from ..files.reading import parse_json

if TYPE_CHECKING:
    from torch import Tensor, dtype

LENGTH_BYTES = 8
MAX_HEADER = 100_000_000
"""Longest header that the format allows, in bytes."""

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
"""torch's names of types, some of which older versions lack, by the format's."""

HALVES = ("F16", "BF16")


@dataclass(frozen=True)
class Entry:
    """Where a tensor is.

    Attributes:
        start: of its bytes, counted from the end of the header.
        end: behind its last byte.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(file: BufferedReader) -> tuple[list[Entry], dict[str, str]]:
    """Read what a file holds, from its beginning.

    Returns:
        The tensors in the order of their bytes, and the metadata.

    Raises:
        ValueError: the header is not as the format says.
    """
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length} bytes, expected {MAX_HEADER} at most")
    header = parse_header(file.read(length))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("the metadata are not an object")
    if not header:
        raise ValueError("it has no tensors")
    entries = sorted((_entry(key, about) for key, about in header.items()), key=lambda each: (each.start, each.end))
    return entries, {str(key): str(value) for key, value in metadata.items()}


def parse_header(text: bytes) -> dict[str, Any]:
    """Return the JSON object of a header, or raise ValueError where it is not one."""
    header = parse_json(text)
    if not isinstance(header, dict):
        raise ValueError("a header that is not an object")
    return header


def _entry(key: str, about: Any) -> Entry:
    try:
        start, end = about["data_offsets"]
        entry = Entry(key, about["dtype"], tuple(about["shape"]), start, end)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"no dtype, shape and offsets of {key[:80]!r}") from error
    numbers = (*entry.shape, start, end)
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers) or entry.dtype not in DTYPES:
        raise ValueError(f"the tensor {key[:80]!r} has the type {str(entry.dtype)[:20]!r} or a size that is not known")
    return entry


def read_tensors(file: BufferedReader, widen: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of an open file.

    Args:
        widen: whether half precision becomes float32, a tensor at a time, which costs no memory beyond the result.

    Raises:
        ValueError: the file is not as the format says, or ends too early.
    """
    entries, metadata = read_header(file)
    tensors: dict[str, Tensor] = {}
    place = 0
    for entry in entries:
        if entry.start != place:
            raise ValueError(f"the tensor {entry.key[:80]!r} begins at {entry.start}, expected {place}")
        tensor = _read(file, entry)
        tensors[entry.key] = tensor.float() if widen and entry.dtype in HALVES else tensor
        place = entry.end
    if file.read(1):
        raise ValueError("bytes behind the last tensor")
    return tensors, metadata


def _read(file: BufferedReader, entry: Entry) -> Tensor:
    import torch

    dtype = _dtype(entry)
    size = entry.end - entry.start
    if size != math.prod(entry.shape) * dtype.itemsize:
        raise ValueError(f"the tensor {entry.key[:80]!r} has {size} bytes, which are not those of its shape")
    content = torch.empty(size, dtype=torch.uint8)
    room: Any = content.numpy()
    if size and file.readinto(room) != size:
        raise ValueError(f"it ends within the tensor {entry.key[:80]!r}")
    return content.view(dtype).reshape(entry.shape)


def _dtype(entry: Entry) -> dtype:
    import torch

    found = getattr(torch, DTYPES[entry.dtype], None)
    if found is None:
        raise ValueError(f"this version of PyTorch has no {entry.dtype}")
    return found
