"""Open files that end: no pipe, device or socket, on which a reader could wait for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

WITHOUT_END = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
"""What is not read, by the type that its mode tells."""

OPENED_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Flags that open a pipe without waiting for a writer, should one have taken the file's place."""


def open_file(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, links followed.

    Raises:
        OSError: there is none, it may not be read, or it is a folder, a pipe, a device or a socket.
    """
    # Opening alone makes some devices act.
    _refuse(path, os.stat(path).st_mode)
    descriptor = os.open(path, os.O_RDONLY | OPENED_AT_ONCE)
    try:
        _refuse(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


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


def _refuse(path: str | Path, mode: int) -> None:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, "a folder, not a file", str(path))
    if kind in WITHOUT_END:
        raise OSError(errno.EINVAL, f"{WITHOUT_END[kind]}, not a file; save its content first", str(path))
