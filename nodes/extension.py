"""The pack as a host loads it."""

from __future__ import annotations

from ..contract import ComfyExtension, add_replacement, add_route, folder_paths, io, stand_ins
from . import NODES
from .moving_in import PARTS_OF, STAND_INS, offers
from .moving_in.packs import PACKS
from .replacements import REPLACEMENTS
from .schedule_preview import PATH, schedule_preview


class Tessera(ComfyExtension):
    """Every node of the pack, what its interface asks for, and the nodes of other packs that it can stand in for."""

    async def on_load(self) -> None:
        """Answer the interface, and offer the replacements."""
        add_route(PATH, schedule_preview)
        for entry in [*REPLACEMENTS, *offers()]:
            await add_replacement(entry)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes' classes, and in ComfyUI those that stand in for other packs' nodes."""
        return [*NODES, *stand_ins(STAND_INS, PACKS, PARTS_OF, lambda: folder_paths.get_filename_list("ipadapter"))]
