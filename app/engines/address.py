"""What `--engine` says."""

from __future__ import annotations

EMBEDDED = "embedded"
"""The host of this process."""


def is_server(name: str | None) -> bool:
    """Return whether a name is meant as a server's rather than the host of this process."""
    return name is not None and name != EMBEDDED
