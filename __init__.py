"""Tessera: seamless textures and more. ComfyUI opens `comfy_entrypoint`; Python has `run` and the libraries."""

from __future__ import annotations

from typing import Any

from . import guidance, images, ip_adapter, prompts, samplers, tiling

__all__ = ["comfy_entrypoint", "guidance", "images", "ip_adapter", "prompts", "samplers", "tiling"]
WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """Hand over the nodes to ComfyUI, as its `ComfyExtension`."""
    from .contract import choose

    choose("comfyui")
    from .nodes.extension import Tessera

    return Tessera()


def __getattr__(name: str) -> Any:
    """Import what runs graphs on demand: ComfyUI opens this door too, and has no use for another host."""
    if name in ("run", "GraphError", "NodeError", "EngineLost"):
        from .app import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
