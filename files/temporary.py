"""Temporary folders that do not outlive the process, however it ends."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from . import locks

PREFIX = "tessera-temporary-"


def make_folder() -> str:
    """Make a folder that is removed when the process ends.

    A process that was killed leaves its folder to the next one that calls this: each holds a lock on its own.
    """
    remove_abandoned()
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX)
        try:
            # Where folders cannot be opened, on Windows, the end of the process alone removes it.
            descriptor = os.open(folder, os.O_RDONLY) if locks.CAN_LOCK else -1
        except FileNotFoundError:
            continue  # Another process took it for abandoned before it was opened.
        if descriptor < 0 or locks.hold(descriptor):
            atexit.register(_remove, folder, os.getpid())
            return folder
        os.close(descriptor)


@functools.cache
def own_folder() -> str:
    """Return the temporary folder of this process, which is made when it is first asked for; see `make_folder`."""
    return make_folder()


def short_lived() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for a `with` block, inside of the one of this process: whatever ends that, nothing is left."""
    return tempfile.TemporaryDirectory(dir=own_folder())


def remove_abandoned() -> None:
    """Remove the folders of this user that no process holds."""
    if not locks.CAN_LOCK:
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.getuid() and locks.take(descriptor):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def _remove(folder: str, owner: int) -> None:
    # A forked process runs the same handlers, and the folder is not its own.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
