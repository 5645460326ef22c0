"""The node classes of the embedded host: the pack's own, and the core nodes that workflows around them use."""

from __future__ import annotations

import importlib
import pkgutil

from ..host.schema.node import ComfyNode
from ..host.schema.object_info import ObjectInfo

PACK = "tessera"
"""The pack's name, as its folder's in ComfyUI."""


def node_classes() -> dict[str, type[ComfyNode]]:
    """Return every node class by its id.

    Raises:
        ValueError: two classes have one id.
        RuntimeError: the pack runs inside ComfyUI in this process.
    """
    from ..contract import choose

    choose("embedded")
    from ..host import nodes as core_nodes
    from ..nodes import NODES

    modules = [
        importlib.import_module(f"{core_nodes.__name__}.{each.name}")
        for each in pkgutil.iter_modules(core_nodes.__path__)
    ]
    for node in NODES:
        # As ComfyUI says of a pack's nodes; the editor finds their help pages by it.
        node.RELATIVE_PYTHON_MODULE = f"custom_nodes.{PACK}"
    classes: dict[str, type[ComfyNode]] = {}
    for node in dict.fromkeys([*NODES, *(node for module in modules for node in module.NODES)]):
        node_id = node.GET_SCHEMA().node_id
        if node_id in classes:
            raise ValueError(f"{classes[node_id].__name__} and {node.__name__} both have the node id {node_id}")
        classes[node_id] = node
    return classes


def object_info() -> ObjectInfo:
    """Return what is known of every node class. Combo boxes list the files in the folders as configured now."""
    return ObjectInfo(node_classes())
