"""The nodes' English texts in the shape that ComfyUI's translators start from.

`python -m tessera.tools.locales` writes `locales/en/nodeDefs.json`; a test fails when it is out of date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..nodes import NODES

PATH = Path(__file__).parents[1] / "locales" / "en" / "nodeDefs.json"


def node_definitions() -> dict[str, dict[str, Any]]:
    """Return the names, descriptions and tooltips of all nodes by node id."""
    return {schema.node_id: _texts(schema) for schema in (node.define_schema() for node in NODES)}


def write() -> None:
    """Bring `locales/en/nodeDefs.json` up to date."""
    PATH.write_text(json.dumps(node_definitions(), indent=2) + "\n", encoding="utf-8")


def _texts(schema: Any) -> dict[str, Any]:
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {i.id: {"name": i.display_name or i.id, "tooltip": i.tooltip} for i in schema.inputs},
        "outputs": {str(n): {"name": o.display_name, "tooltip": o.tooltip} for n, o in enumerate(schema.outputs)},
    }


if __name__ == "__main__":
    write()
