"""`tessera nodes`: list the nodes."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from .arguments import DONE, Parser, folders_of

if TYPE_CHECKING:
    from ...host.schema.object_info import ObjectInfo


def declare(commands: Any, parents: list[Parser]) -> None:
    """Add the command."""
    nodes = commands.add_parser("nodes", parents=parents, help="list the nodes")
    nodes.add_argument("--json", action="store_true", help="in the shape of ComfyUI's /object_info")
    nodes.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    info = configured(options)
    if options.json:
        print(json.dumps(dict(info)))
        return DONE
    for node_id, node in sorted(info.items(), key=lambda item: (item[1]["category"], item[0])):
        print(f"{node_id:<24} {node['description']}")
    return DONE


def configured(options: argparse.Namespace) -> ObjectInfo:
    """Set the folders that were chosen, and return what is known of the nodes."""
    from ...host import folder_paths
    from ..registry import object_info

    folder_paths.configure(**folders_of(options))
    return object_info()
