"""Which engine `--engine` means."""

from __future__ import annotations

from typing import Any

from .address import is_server
from .engine import Engine


def open_engine(name: str, **options: Any) -> Engine:
    """Return an engine.

    Args:
        name: "embedded", or the address of a ComfyUI server.
        options: of the embedded engine.

    Raises:
        GraphError: the name is neither, or an option is wrong.
    """
    if is_server(name):
        from .server import ServerEngine

        return ServerEngine(name)
    from .embedded import EmbeddedEngine

    return EmbeddedEngine(**options)
