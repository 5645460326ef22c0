"""Progress and interruption.

Drop-in replacement for `comfy.utils.ProgressBar` and the interruption of `comfy.model_management`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

ProgressHook = Callable[[float, float, Any], None]

_interrupted = threading.Event()
_hook: ProgressHook | None = None


class InterruptProcessingException(Exception):  # noqa: N818 - the name ComfyUI gave it
    """The user stopped the run."""


def interrupt_current_processing(value: bool = True) -> None:
    """Ask the run to stop at its next step, or take that back."""
    if value:
        _interrupted.set()
    else:
        _interrupted.clear()


def processing_interrupted() -> bool:
    """Return whether the run was asked to stop."""
    return _interrupted.is_set()


def throw_exception_if_processing_interrupted() -> None:
    """Raise InterruptProcessingException, once, where the run was asked to stop. Called at every sampling step."""
    if _interrupted.is_set():
        _interrupted.clear()
        raise InterruptProcessingException()


def set_progress_bar_global_hook(function: ProgressHook | None) -> None:
    """Show progress through `function(value, total, preview)` from now on; None shows nothing."""
    global _hook
    _hook = function


class ProgressBar:
    """Progress inside the node that runs. Every update is also a place where the run can be stopped."""

    def __init__(self, total: float, node_id: str | None = None) -> None:
        self.total = total
        self.current: float = 0

    def update_absolute(self, value: float, total: float | None = None, preview: Any = None) -> None:
        """Say that `value` of `total` is done."""
        throw_exception_if_processing_interrupted()
        if total is not None:
            self.total = total
        self.current = min(value, self.total)
        if _hook is not None:
            _hook(self.current, self.total, preview)

    def update(self, value: float) -> None:
        """Say that `value` more is done."""
        self.update_absolute(self.current + value)
