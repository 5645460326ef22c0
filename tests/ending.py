"""Processes of tests that end."""

from __future__ import annotations

import subprocess
from typing import Any


def end_of(process: subprocess.Popen[Any], seconds: float = 120.0) -> tuple[Any, Any]:
    """Return what a process wrote until it ended; one that does not end is killed, and the test fails."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
