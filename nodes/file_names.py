"""Names of the files that a node writes."""

from __future__ import annotations

import os
import re

from ..contract import folder_paths

LONGEST = 240
"""Longest name or folder in bytes; file systems allow 255, and a number and a suffix follow."""


def check_prefix(prefix: str) -> None:
    """Check the start of a file name, which may contain folders.

    Raises:
        ValueError: it is empty, too long, or leads out of the output folder.
    """
    root = os.path.abspath(folder_paths.get_output_directory())
    # Workflows from Windows have back slashes, and "C:" where a path does not begin in the output folder.
    slashed = prefix.replace("\\", "/")
    folder, stem = os.path.split(os.path.normpath(slashed))
    path = os.path.abspath(os.path.join(root, folder))
    absolute = os.path.isabs(slashed) or re.match("[A-Za-z]:", prefix) is not None
    leads_out = absolute or (path != root and not path.startswith(os.path.join(root, "")))
    if leads_out or stem in ("", ".", "..") or "\0" in prefix:
        raise ValueError(
            f"filename_prefix is {prefix[:80]!r}; expected a name, or a path below the output folder; write one "
            "such as textures/moss"
        )
    longest = max(len(part.encode("utf-8", "surrogatepass")) for part in (*folder.split(os.sep), stem))
    if longest > LONGEST:
        raise ValueError(f"filename_prefix has a part of {longest} bytes; expected {LONGEST} at most; shorten it")
