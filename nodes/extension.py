"""The pack as a host loads it."""

from __future__ import annotations

from ..contract import ComfyExtension, add_replacement, add_route, io
from . import NODES
from .replacements import REPLACEMENTS
from .schedule_preview import PATH, schedule_preview


class Tessera(ComfyExtension):
    """Every node of the pack, what its interface asks for, and the nodes of other packs that it can stand in for."""

    async def on_load(self) -> None:
        """Answer the interface, and offer the replacements."""
        add_route(PATH, schedule_preview)
        for entry in REPLACEMENTS:
            await add_replacement(entry)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes' classes."""
        return NODES
