"""Files: never half written, and never outside their folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


def is_within_directory(directory: str, target: str) -> bool:
    """Whether `target` lies in `directory`, links followed."""
    try:
        directory, target = os.path.realpath(directory), os.path.realpath(target)
        return os.path.commonpath((directory, target)) == directory
    except ValueError:  # A NUL in the name, or another drive on Windows.
        return False


@contextmanager
def atomic_write(path: str) -> Iterator[BinaryIO]:
    """Open a file beside `path` that takes its place once it is complete; after an error nothing of it stays.

    Raises:
        OSError: the folder cannot be written; the message names it.
    """
    folder, name = os.path.split(os.path.abspath(path))
    part = os.path.join(folder, f".{name[:100]}.{uuid.uuid4().hex}.part")
    try:
        with open(part, "xb") as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{name} cannot be saved in {folder}: {(error.strerror or str(error)).lower()}; "
            "make room there or choose another folder",
        ) from error
    finally:
        if os.path.exists(part):
            os.remove(part)
