"""Inputs that several nodes declare."""

from __future__ import annotations

from typing import Any

from ..contract import io


def percent(name: str, default: float, tooltip: str) -> Any:
    """A fraction of the schedule."""
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, optional=True, tooltip=tooltip)


def check_range(start: float, end: float) -> None:
    """Raise ValueError when a range of the schedule ends before it starts."""
    if start > end:
        raise ValueError(f"start_percent {start} lies after end_percent {end}; set a start that is not later.")
