"""Nodes that an interface draws and never sends: ComfyUI's own, and those of packs that many shared files use.

Of KJNodes and ComfyUI-Easy-Use, SetNode and GetNode: a link by a name instead of a line. Of rgthree-comfy, another
reroute, and switches that have set the modes of other nodes before the file was saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRIMITIVE = "PrimitiveNode"
REROUTES = {"Reroute", "Reroute (rgthree)"}
SETTERS = {"SetNode", "easy setNode"}
GETTERS = {"GetNode", "easy getNode"}
RGTHREE = (
    "Bookmark",
    "Fast Actions Button",
    "Fast Bypasser",
    "Fast Groups Bypasser",
    "Fast Groups Muter",
    "Fast Muter",
    "Label",
    "Mute / Bypass Relay",
    "Mute / Bypass Repeater",
    "Node Collector",
    "Random Unmuter",
)
VIRTUAL_NODES = {PRIMITIVE, "Note", "MarkdownNote", *REROUTES, *SETTERS, *GETTERS, *(f"{n} (rgthree)" for n in RGTHREE)}


def hands_on(node: Mapping[str, Any]) -> bool:
    """Return whether a node's output is what its first input gets."""
    return node["type"] in REROUTES or node["type"] in SETTERS


def constant(node: Mapping[str, Any]) -> str | None:
    """Return the name that a setter gives to its input, or that a getter asks for."""
    values = node.get("widgets_values")
    name = values[0] if isinstance(values, list) and values else None
    return name if isinstance(name, str) and name else None
