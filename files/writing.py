"""Write files so that a reader sees a whole file or none, also while other processes write into the same folder."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def replace(path: str | Path, content: bytes) -> None:
    """Write a file, in place of one that has its name.

    Raises:
        OSError: the folder cannot be written; the message names it.
    """
    path = Path(os.path.abspath(path))
    with _explained(path), _temporary(path.parent, content) as temporary:
        os.replace(temporary, path)


def create(path: str | Path, content: bytes) -> bool:
    """Write a new file.

    Returns:
        False where something has its name, which is left as it was.

    Raises:
        OSError: the folder cannot be written; the message names it.
    """
    path = Path(os.path.abspath(path))
    with _explained(path), _temporary(path.parent, content) as temporary:
        try:
            _take_name(temporary, path)
        except FileExistsError:
            return False
    return True


def create_series(folder: str | Path, stem: str, suffix: str, contents: Iterable[bytes], first: int = 1) -> list[str]:
    """Write new files named as ComfyUI does, `<stem>_<number>_<suffix>`, skipping numbers that are taken.

    Args:
        stem: "%batch_num%" in it becomes the place in the series, from 0.
        suffix: with its dot.
        contents: one a file.
        first: the number to begin with.

    Returns:
        The names of the files, which no other process has got.

    Raises:
        OSError: the folder cannot be written; the message names it, and the files before stay.
    """
    names = []
    numbers = itertools.count(first)
    for place, content in enumerate(contents):
        beginning = stem.replace("%batch_num%", str(place))
        candidates = (f"{beginning}_{number:05}_{suffix}" for number in numbers)
        names.append(next(name for name in candidates if create(Path(folder) / name, content)))
    return names


@contextmanager
def _temporary(folder: Path, content: bytes) -> Iterator[Path]:
    """Make a file under a name that no other process uses, and remove that name at the end."""
    path = folder / f".{uuid.uuid4().hex}.part"
    try:
        with open(path, "xb") as file:
            file.write(content)
            file.flush()
            # Without this, a power failure after the rename could leave an empty file.
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def _take_name(temporary: Path, path: Path) -> None:
    """Give a file its final name unless that is taken, in one step: a rename would replace what is there."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links, such as exFAT: an empty file reserves the name.
        path.touch(exist_ok=False)
        try:
            os.replace(temporary, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path.name} cannot be saved in {path.parent}: {(error.strerror or str(error)).lower()}; "
            "make room there or choose another folder",
        ) from error
