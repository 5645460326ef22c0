"""The standard streams, whatever they are: closed, full, gone, or of an encoding that lacks letters."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from ...host.errors import escaped

STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def prepare() -> None:
    """Open what is closed, so that no file gets its number, and print letters that an encoding lacks escaped."""
    for number, name, mode in STREAMS:
        try:
            os.fstat(number)
        except OSError:
            _point_nowhere(number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - it lasts as long as the process
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            reconfigured: Any = stream
            reconfigured.reconfigure(errors="backslashreplace")


def tell(*lines: str) -> None:
    """Print lines on standard output now.

    Raises:
        OSError: it takes no more; BrokenPipeError where whoever read it has gone.
    """
    for line in lines:
        print(escaped(line))
    sys.stdout.flush()


def complain(*lines: str) -> None:
    """Print lines on standard error, if it can be written."""
    with suppress(OSError, ValueError):
        for line in lines:
            print(escaped(line), file=sys.stderr, flush=True)


def finish() -> None:
    """Let go of what cannot be written, about which Python would complain while it shuts down."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            _point_nowhere(number)


def _point_nowhere(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
