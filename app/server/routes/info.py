"""What the server is and which nodes it has."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from aiohttp import web

from ..messages import jsonable
from ..state import STATE, State

routes = web.RouteTableDef()

COMFYUI_VERSION = "0.33.0"
"""The ComfyUI whose API this is; clients ask for it to know what they may use."""


@routes.get("/object_info")
async def object_info(request: web.Request) -> web.Response:
    """Return what is known of every node."""
    return web.json_response(await asyncio.to_thread(_all_nodes, request.app[STATE]))


def _all_nodes(state: State) -> dict[str, Any]:
    return jsonable(dict(state.object_info()))


@routes.get("/object_info/{node_class}")
async def object_info_of(request: web.Request) -> web.Response:
    """Return what is known of one node; nothing where there is no such node."""
    info, name = request.app[STATE].object_info(), request.match_info["node_class"]
    return web.json_response(jsonable({name: info[name]} if name in info else {}))


@routes.get("/system_stats")
async def system_stats(request: web.Request) -> web.Response:
    """Return versions, memory and devices."""
    return web.json_response(await asyncio.to_thread(_stats))


def _stats() -> dict[str, Any]:
    import torch

    from ....host.runtime.devices import torch_device

    total, free = _memory()
    device = torch_device()
    video = torch.cuda.mem_get_info(device) if device.type == "cuda" else (free, total)
    kept = torch.cuda.memory_reserved(device) if device.type == "cuda" else total
    used = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    system = {
        "os": sys.platform,
        "ram_total": total,
        "ram_free": free,
        "comfyui_version": COMFYUI_VERSION,
        "required_frontend_version": None,
        "installed_templates_version": None,
        "required_templates_version": None,
        "comfy_package_versions": [],
        "python_version": sys.version,
        "pytorch_version": torch.__version__,
        "embedded_python": False,
        "deploy_environment": "tessera",
        "argv": ["tessera", "serve"],
    }
    about = {
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "type": device.type,
        "index": device.index,
        "vram_total": video[1],
        "vram_free": video[0],
        "torch_vram_total": kept,
        "torch_vram_free": kept - used,
    }
    return {"system": system, "devices": [about]}


def _memory() -> tuple[int, int]:
    """Return the bytes of main memory, and how many are free; 0 where the system does not tell."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0, 0
