"""What an exception says to whoever runs a graph, and whether the graph and its files are at fault."""

from __future__ import annotations

import errno
import re

import torch

from ..errors import TooLargeError, one_line
from ..schema.node import WrongNodeError

MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}
"""Numbers of errors of the machine, which other input does not mend: full, broken, or too many open files."""

PROGRAM = (WrongNodeError, ImportError)
"""What no input causes: a node that breaks the rules of nodes, or a package that is missing."""

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Storage size calculation overflowed")
"""Words of PyTorch, which raises RuntimeError on the CPU and on Apple's GPU."""

ASKED_FOR = re.compile(r"to allocate ([\d.]+ \w+)", re.IGNORECASE)
"""What PyTorch says of how much it wanted."""

LONGEST_REASON = 200


def input_is_at_fault(error: BaseException) -> bool:
    """Return whether another workflow, file or option would help.

    All that a node raises counts, but what is known to come from the machine or from the program.
    """
    if isinstance(error, OSError):
        return error.errno not in MACHINE
    return not isinstance(error, PROGRAM)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether memory was too small, on whatever device."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def may_pass(error: BaseException | None) -> bool:
    """Return whether the same input may work when it is tried again: devices and memory fail with RuntimeError."""
    return isinstance(error, RuntimeError)


def explain(error: BaseException) -> str:
    """Return what failed and what to do, for whoever runs the graph."""
    if isinstance(error, TooLargeError):
        return f"out of memory: {error}, or take --dtype fp16"
    if is_out_of_memory(error):
        other = ", or --dtype fp16" if isinstance(error, torch.cuda.OutOfMemoryError) else ""
        asked = ASKED_FOR.search(str(error))
        size = f" ({asked[1]} were asked for at once)" if asked else ""
        return f"out of memory; take a smaller image or batch{other}{size}"
    if isinstance(error, OSError) and error.strerror:
        full = "; make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename else ""
        return f"{error.filename}: {error.strerror}{full}" if error.filename else error.strerror
    if isinstance(error, (ValueError, OSError, ImportError)) and str(error):
        return str(error)
    if isinstance(error, PROGRAM):
        return f"{error}; run again with --debug to see where it comes from"
    # PyTorch says in words what does not fit; what Python says of itself helps nobody here.
    reason = _reason(error) if isinstance(error, RuntimeError) else ""
    return (
        f"cannot work with what it was given{reason}; check the types and sizes of what is linked to it, "
        "or run again with --debug to see the cause"
    )


def _reason(error: BaseException) -> str:
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f" ({one_line(first_line, LONGEST_REASON)})" if first_line else ""
