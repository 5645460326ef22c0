"""Drop-in replacement for `comfy_api.latest`: how a pack hands over its nodes."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .node import ComfyNode


class ComfyExtension(ABC):
    """A pack."""

    async def on_load(self) -> None:  # noqa: B027 - optional
        """Prepare what the pack needs; called once."""

    @abstractmethod
    async def get_node_list(self) -> list[type[ComfyNode]]:
        """Return the pack's nodes."""
