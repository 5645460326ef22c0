"""Read what ends: no pipe or device on which to wait for ever, no JSON that grows beyond the memory."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from io import DEFAULT_BUFFER_SIZE, BufferedReader, FileIO
from pathlib import Path
from typing import Any

WITHOUT_END = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a connection",
}
"""What is not read, by the type that its mode tells."""

MOST_VALUES = 10_000_000
"""Values in a JSON document: each takes up to 100 bytes of memory, however few it has in the file."""

OPENED_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Flags that open a pipe without waiting for a writer, should one have taken the file's place."""


def open_file(path: str | Path) -> BufferedReader:
    """Open a regular file for reading, links followed.

    Raises:
        OSError: there is none, it may not be read, or it is a folder, a pipe or a device.
    """
    # Opening alone makes some devices act.
    _refuse(path, os.stat(path).st_mode)
    descriptor = os.open(path, os.O_RDONLY | OPENED_AT_ONCE)
    try:
        _refuse(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return _WithinItself(FileIO(descriptor, "rb"))


class _WithinItself(BufferedReader):
    """Asks for no more memory than the rest of the file takes, whatever a header claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DEFAULT_BUFFER_SIZE:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def read_file(path: str | Path, most: int) -> bytes:
    """Return the content of a regular file.

    Args:
        most: bytes that it may have.

    Raises:
        OSError: see `open_file`; or it has more bytes.
    """
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"more than {most} bytes", str(path))
    return content


def parse_json(content: str | bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Parse JSON, or raise ValueError where it is not JSON, is nested too deeply or has too many values.

    Args:
        parse_constant: called with "NaN", "Infinity" or "-Infinity", which are read as numbers by default.
    """
    marks = (",", "[", "{") if isinstance(content, str) else (b",", b"[", b"{")
    if sum(content.count(mark) for mark in marks) > MOST_VALUES:  # pyright: ignore[reportArgumentType]
        raise ValueError(f"more than {MOST_VALUES} values")
    try:
        return json.loads(content, parse_constant=parse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(path: str | Path, mode: int) -> None:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, "a folder, not a file", str(path))
    if kind in WITHOUT_END:
        raise OSError(errno.EINVAL, f"{WITHOUT_END[kind]}, not a file; save its content first", str(path))
