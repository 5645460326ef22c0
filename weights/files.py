"""Reading of model files: whatever a reader raises, a broken download is reported as one."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.reading import open_file, parse_json, read_file
from .safetensors_files import LENGTH_BYTES, MAX_HEADER, parse_header, read_header, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

SAFETENSORS = (".safetensors", ".sft")
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
DOWNLOAD = "download it again"
MOST_JSON = 2**28
"""Bytes of a JSON file; tokenizers have some ten million."""

LARGE = 2**30
"""Bytes of a file from which on it may be too large for the memory; a smaller one that asks for more is damaged."""

OF_PYTHON = (MemoryError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, NameError)
"""Errors whose words are about the reader's code and not about the file."""

HEAD, SHOWN = 4096, 60
"""Bytes read to recognise a page or a message, and characters of it that are shown."""
_LFS = b"version https://git-lfs.github.com/spec"
_TEXTS = (".txt", ".json", ".jinja")
_REFUSED = re.compile(r"GLOBAL|Unsupported (global|class)|Trying to|Can only|legacy \.tar|operand \d")
"""torch's messages about intact files that hold more than tensors."""
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")
_GLOBAL = re.compile(r"GLOBAL (\S+)")


class BrokenFileError(ValueError):
    """A file is broken: empty, truncated, or a web page instead of a model."""


@contextmanager
def reading(path: Path, remedy: str = DOWNLOAD) -> Iterator[None]:
    """Report failures of a reader of one file as broken files.

    Args:
        path: of the file.
        remedy: what to do about a broken one.

    Raises:
        BrokenFileError: the reader failed; the message names the file, what was found, and what to do.
        OSError: the file is missing, or may not be read.
    """
    try:
        yield
    except (BrokenFileError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        found = damage(path)
        if found is None and path.stat().st_size > LARGE and (isinstance(error, MemoryError) or "memory" in str(error)):
            raise
        reason = "" if isinstance(error, OF_PYTHON) else f": {_first_line(error)}"
        raise broken(path, found or f"{_bytes(path)} that are damaged{reason}", remedy) from error


def broken(path: Path, found: str, remedy: str = DOWNLOAD) -> BrokenFileError:
    """Return the error of a broken file."""
    if (better := _better_ending(path)) is not None:
        return BrokenFileError(f"{path} has the wrong ending; rename it to {better}, which is what it holds")
    return BrokenFileError(f"{path} cannot be read; {remedy} (found {found})")


def check(paths: Iterable[Path]) -> None:
    """Check files that another library reads, which would say less or accept broken ones.

    Raises:
        BrokenFileError: one is broken, as far as its beginning, end and header show.
    """
    for path in paths:
        if path.is_file() and (found := damage(path)):
            raise broken(path, found)


def check_folder(folder: Path) -> None:
    """`check` for the files of a model's folder, as transformers and diffusers write it.

    Raises:
        BrokenFileError: see `check`.
    """
    endings = (*SAFETENSORS, *PICKLES, ".json", ".model", ".jinja")
    names = ("vocab.txt", "merges.txt")
    check(path for path in sorted(folder.iterdir()) if path.suffix in endings or path.name in names)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide transformers' progress bars while it loads a folder; nodes have their own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def check_model(path: str | Path) -> Path:
    """`check` for a model that is a file or a folder; return its path."""
    path = Path(path)
    check_folder(path) if path.is_dir() else check([path])
    return path


def read_safetensors(path: Path, remedy: str = DOWNLOAD, widen: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Args:
        widen: whether half precision becomes float32, a tensor at a time.

    Raises:
        BrokenFileError: it is broken.
    """
    return read_described(path, remedy, widen)[0]


def read_described(path: Path, remedy: str = DOWNLOAD, widen: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file; `widen` as in `read_safetensors`.

    Raises:
        BrokenFileError: it is broken.
    """
    with reading(path, remedy), open_file(path) as file:
        return read_tensors(file, widen)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of a safetensors file's tensors, and nothing else of it.

    Raises:
        BrokenFileError: its header is broken.
    """
    with reading(path), open_file(path) as file:
        return {entry.key: entry.shape for entry in read_header(file)[0]}


def read_pickle(path: Path, shapes_only: bool = False) -> Any:
    """Read a pickle of tensors, containers and numbers; everything else is refused, above all code.

    Args:
        path: of the file.
        shapes_only: whether nobody will look at the numbers in the tensors, which then stay in the file.

    Raises:
        BrokenFileError: the file is broken.
        ValueError: it holds other objects.
        OSError: see `open_file`.
    """
    with reading(path):
        try:
            return _unpickled(path, shapes_only)
        except (pickle.UnpicklingError, RuntimeError) as error:
            if not _REFUSED.search(str(error)) or damage(path):
                raise
            named = _GLOBAL.search(str(error))
            what = named[1] if named else "objects of other kinds"
    raise ValueError(f"{path} was refused, because it holds more than tensors ({what}); use a .safetensors file")


def _unpickled(path: Path, shapes_only: bool) -> Any:
    """Return what torch reads of a regular file; others, which would be waited for, are refused."""
    import torch

    with open_file(path), warnings.catch_warnings():
        # Torch warns of pickles that are refused afterwards, or read all the same.
        warnings.simplefilter("ignore")
        # Pickles of PyTorch before 1.6 are no archives, and can be read as a whole only.
        mapped = shapes_only and zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def read_weights(path: Path) -> Mapping[str, Any]:
    """Read the named weights of a file, flat or nested, with an extension of SAFETENSORS or PICKLES.

    Raises:
        BrokenFileError: the file is broken.
        ValueError: it holds something else.
    """
    if path.suffix.lower() in SAFETENSORS:
        return read_safetensors(path)
    content = read_pickle(path)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        kind = "numbered entries" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(f"{path} holds {kind}, expected weights by name")
    return content


def first_shard(path: Path) -> Path:
    """Return the first of the files over which weights are spread (`model-00001-of-00003.bin`); else the path."""
    match = _SHARD.fullmatch(path.name)
    return path.with_name(f"{match[1]}-00001-of-{match[2]}{match[3]}") if match else path


def shards(path: Path) -> list[Path]:
    """Return all files over which weights are spread: by the name of one of them, or of a folder.

    Raises:
        BrokenFileError: some are missing.
    """
    if path.is_dir():
        return sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
    match = _SHARD.fullmatch(path.name)
    if not match:
        return [path]
    every = [path.with_name(f"{match[1]}-{i + 1:05}-of-{match[2]}{match[3]}") for i in range(int(match[2]))]
    missing = [each.name for each in every if not each.is_file()]
    if missing:
        raise broken(path, f"one of {len(every)} files; {', '.join(missing)} are missing", "download all of them")
    return every


def read_spread(path: Path) -> dict[str, Any]:
    """Read the named weights of a file, and of the others where they are spread over several.

    Raises:
        BrokenFileError: a file is broken or missing.
        ValueError: it holds something else.
    """
    return {key: tensor for each in shards(path) for key, tensor in read_weights(each).items()}


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of the weights of a file, spread or not, without the weights; nothing of one that has none."""
    import torch

    found: dict[str, tuple[int, ...]] = {}
    try:
        for each in shards(path):
            if each.suffix.lower() in SAFETENSORS:
                found |= read_shapes(each)
            elif each.suffix.lower() in PICKLES:
                content = _unpickled(each, shapes_only=True)
                content = content.get("state_dict", content)
                found |= {key: tuple(t.shape) for key, t in content.items() if isinstance(t, torch.Tensor)}
    except (OSError, RuntimeError, ValueError, AttributeError, pickle.UnpicklingError):
        return {}
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: no such file.
        BrokenFileError: it is not JSON, or not an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    with reading(path):
        content = parse_json(read_file(path, MOST_JSON).decode("utf-8"))
    if not isinstance(content, dict):
        raise broken(path, f"a {type(content).__name__}, expected a JSON object")
    return content


def damage(path: Path) -> str | None:
    """Say what is wrong with a model file, as far as its bytes show; None where nothing is."""
    size = path.stat().st_size
    with open_file(path) as file:
        head = file.read(HEAD)
    if not head:
        return "an empty file"
    if head.startswith(_LFS):
        return f"a Git LFS pointer of {size} bytes, which only names the file"
    text = _text(head)
    if text.startswith("<"):
        kind = "an HTML page" if "html" in text.lower() else "a page"
        return f"{kind} of {size} bytes"
    if path.suffix.lower() in _TEXTS:
        return _no_json(path, size) if path.suffix.lower() == ".json" else None
    if text:
        return f'text of {size} bytes: "{text.splitlines()[0][:SHOWN]}"'
    if path.suffix.lower() in SAFETENSORS:
        return _no_safetensors(path, head, size)
    if path.suffix.lower() in PICKLES:
        return _no_pickle(path, head, size)
    return None


def _no_json(path: Path, size: int) -> str | None:
    content = read_file(path, MOST_JSON)
    try:
        parse_json(content)
    except ValueError as error:
        what = "not JSON" if content.rstrip().endswith((b"}", b"]")) else "not JSON, or cut short"
        return f"{size} bytes that are {what}: {_first_line(error)}"
    return None


def _no_safetensors(path: Path, head: bytes, size: int) -> str | None:
    if _is_pickle(head):
        return "a pickle"
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    if size < LENGTH_BYTES or size < LENGTH_BYTES + length <= MAX_HEADER:
        return f"{size} bytes, cut short in the header of a safetensors file"
    if length > MAX_HEADER:
        return f"{size} bytes that are not a safetensors file"
    ends = _ends(path, length)
    if ends is None:
        return f"{size} bytes with a damaged header"
    whole = LENGTH_BYTES + length + max(ends, default=0)
    if size == whole:
        return None
    return f"{size} of {whole} bytes, cut short" if size < whole else f"{size} bytes, {size - whole} too many"


def _ends(path: Path, length: int) -> list[int] | None:
    """Return where tensors end, counted from the end of a safetensors header; None where it is damaged."""
    with open_file(path) as file:
        file.seek(LENGTH_BYTES)
        header = file.read(length)
    try:
        return [int(about["data_offsets"][1]) for key, about in parse_header(header).items() if key != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None


def _no_pickle(path: Path, head: bytes, size: int) -> str | None:
    if head.startswith(b"PK"):
        return None if zipfile.is_zipfile(path) else f"{size} bytes, cut short: the archive has no end"
    if _is_pickle(head):
        return None
    if _is_safetensors(head):
        return "a safetensors file"
    return f"{size} bytes that are not a file of weights"


def _is_pickle(head: bytes) -> bool:
    return head.startswith((b"PK\x03\x04", b"\x80"))


def _is_safetensors(head: bytes) -> bool:
    return int.from_bytes(head[:LENGTH_BYTES], "little") <= MAX_HEADER and head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"


def _better_ending(path: Path) -> str | None:
    """Return the extension that a file of weights should have, where it has the wrong one."""
    ending = path.suffix.lower()
    with open_file(path) as file:
        head = file.read(HEAD)
    if ending in SAFETENSORS and _is_pickle(head):
        return ".pt"
    return ".safetensors" if ending in PICKLES and _is_safetensors(head) else None


def _text(head: bytes) -> str:
    """Return the beginning of a text, stripped; nothing for other files."""
    # A character of several bytes may be cut at the end.
    text = head.decode("utf-8-sig", errors="replace").rstrip("\ufffd").strip()
    return text if all(c.isprintable() or c.isspace() for c in text) and "\ufffd" not in text else ""


def _bytes(path: Path) -> str:
    return f"{path.stat().st_size} bytes"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
