"""Methods of modules swapped for the duration of a `with` block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def swapped(name: str, methods: Sequence[tuple[nn.Module, Any]]) -> Iterator[None]:
    """Set the method `name` of each module as an instance attribute, and restore it on exit, errors included.

    Blocks may nest: the innermost one applies.
    """
    before = [(module, module.__dict__.get(name)) for module, _ in methods]
    try:
        for module, method in methods:
            module.__dict__[name] = method
        yield
    finally:
        for module, method in before:
            if method is None:
                module.__dict__.pop(name, None)
            else:
                module.__dict__[name] = method
