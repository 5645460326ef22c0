"""The pack as ComfyUI loads it."""

from __future__ import annotations

from ..contract import ComfyExtension, io
from . import NODES


class Tessera(ComfyExtension):
    """Every node of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes' classes."""
        return NODES
