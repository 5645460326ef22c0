"""Locks that end with the process that holds them, however it ends, so that what it left can be told apart."""

from __future__ import annotations

import os

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed anyway.
    fcntl = None

CAN_LOCK = fcntl is not None
"""Whether `hold` and `take` do anything on this system."""


def hold(descriptor: int) -> bool:
    """Lock an open file or folder until its descriptor is closed.

    Returns:
        False where somebody removed it before it was locked.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return True  # A file system without locks: `take` cannot lock there either.
    return os.fstat(descriptor).st_nlink > 0


def take(descriptor: int) -> bool:
    """Lock an open file or folder if nobody holds it, and return whether that was so."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
