"""Tessera: seamless textures and more for ComfyUI; this file is the door that ComfyUI opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .contract import ComfyExtension, io

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> ComfyExtension:
    """Hand over the nodes to ComfyUI."""
    from .contract import choose

    choose("comfyui")
    from .contract import ComfyExtension
    from .nodes import NODES

    class Tessera(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return NODES

    return Tessera()
