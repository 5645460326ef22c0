"""Methods of modules exchanged for as long as a `with` block lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def swapped(name: str, methods: Sequence[tuple[nn.Module, Any]]) -> Iterator[None]:
    """Give each module its new method `name` as an instance attribute; on exit each is what it was, errors included.

    Blocks may nest: the inner one rules while it lasts.
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
