"""Write files so that a reader sees a whole file or none, also while other processes write into the same folder.

Where the system can, a file is written without a name, which it gets when it is whole: whatever ends the process,
nothing else is left. Elsewhere it is first a hidden `.tessera-*.part`, which a lock marks as in use; those of processes
that were killed are removed by the next one that writes into the folder.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

from . import locks

PART = re.compile(r"\.tessera-[0-9a-f]{32}\.part")
"""Names of unfinished files."""

_recorded: ContextVar[list[Path] | None] = ContextVar("recorded", default=None)


def replace(path: str | Path, content: bytes) -> None:
    """Write a file, in place of one that has its name.

    Raises:
        OSError: the folder cannot be written; the message names it.
    """
    path = Path(os.path.abspath(path))
    with _explained(path):
        remove_abandoned(path.parent)
        part = _part(path.parent, uuid.uuid4().hex)
        if _create_at_once(part, content):
            try:
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
            return
        with _written(part, content):
            os.replace(part, path)


def create(path: str | Path, content: bytes) -> bool:
    """Write a new file.

    Returns:
        False where something has its name, which is left as it was.

    Raises:
        OSError: the folder cannot be written; the message names it.
    """
    path = Path(os.path.abspath(path))
    with _explained(path):
        remove_abandoned(path.parent)
        try:
            if not _create_at_once(path, content):
                # Writers of one name share the name of its part: one of them gets it, and looks before it renames.
                part = _part(path.parent, hashlib.sha256(os.fsencode(path.name)).hexdigest())
                with _written(part, content):
                    _take_name(part, path)
        except FileExistsError:
            return False
    made = _recorded.get()
    if made is not None:
        made.append(path)
    return True


@contextmanager
def recorded() -> Iterator[list[Path]]:
    """Collect the files that are created inside, in order, also where whoever creates them fails half way."""
    made: list[Path] = []
    token = _recorded.set(made)
    try:
        yield made
    finally:
        _recorded.reset(token)


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


@functools.lru_cache(maxsize=256)
def remove_abandoned(folder: Path) -> None:
    """Remove unfinished files that a process left in a folder when it was killed; looks once in the life of ours."""
    with suppress(OSError):
        for part in [entry.path for entry in os.scandir(folder) if PART.fullmatch(entry.name)]:
            _remove_if_abandoned(part)


def _remove_if_abandoned(part: str) -> None:
    with suppress(OSError):
        descriptor = os.open(part, os.O_RDONLY)
        try:
            # Its owner may have renamed the file that we opened.
            if locks.take(descriptor) and os.path.samestat(os.fstat(descriptor), os.stat(part)):
                os.unlink(part)
        finally:
            os.close(descriptor)


def _part(folder: Path, digits: str) -> Path:
    return folder / f".tessera-{digits[:32]}.part"


def _create_at_once(path: Path, content: bytes) -> bool:
    """Write a file that gets its name when it is whole.

    Returns:
        False where system or file system cannot do that.

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except (OSError, AttributeError):
        return False
    with open(descriptor, "wb") as file:
        if os.path.lexists(path):
            raise FileExistsError
        _fill(file, content)
        try:
            # The link in /proc is only followed where a folder is named as well.
            os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
        except FileExistsError:
            raise
        except OSError:
            return False
    return True


@contextmanager
def _written(part: Path, content: bytes) -> Iterator[None]:
    """Write an unfinished file, and remove its name at the end.

    Raises:
        FileExistsError: the name is taken.
    """
    file = _open_locked(part)
    try:
        _fill(file, content)
        if not locks.CAN_LOCK:
            file.close()  # Windows does not rename what is open.
        yield
    finally:
        _remove(part, file)


def _open_locked(part: Path) -> BinaryIO:
    while True:
        file = open(part, "xb")  # noqa: SIM115 - the lock lasts until it is closed
        if locks.hold(file.fileno()):
            return file
        # It was taken for abandoned in the moment before it was locked.
        file.close()


def _remove(part: Path, file: BinaryIO) -> None:
    """Remove the name of an unfinished file, unless it was renamed and the name is another writer's by now."""
    with suppress(OSError):
        if not locks.CAN_LOCK:
            file.close()
            part.unlink()
        elif os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
            part.unlink()
    file.close()


def _fill(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    # Without this, a power failure after the rename could leave an empty file.
    os.fsync(file.fileno())


def _take_name(part: Path, path: Path) -> None:
    """Give a file its final name unless that is taken."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links, such as exFAT. Windows' rename refuses a name that is taken by itself.
        if os.path.lexists(path):
            raise FileExistsError from None
        os.rename(part, path)


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
