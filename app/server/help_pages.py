"""Help pages of core nodes, from what their declarations say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...host.schema.object_info import inputs_of


def help_text(info: Mapping[str, Any]) -> str:
    """Return a page in Markdown: what the node does, its inputs, its outputs.

    Args:
        info: the node's entry in /object_info.
    """
    inputs = ((each.name, each.type, each.options.get("tooltip")) for each in inputs_of(info).values())
    outputs = zip(info["output_name"], info["output"], info["output_tooltips"], strict=True)
    parts = [f"# {info['display_name'] or info['name']}", info["description"]]
    parts += [_table("Inputs", inputs), _table("Outputs", outputs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(title: str, rows: Iterable[tuple[str, str, str | None]]) -> str:
    lines = [f"| `{name}` | {kind} | {(text or '').replace('|', '/')} |" for name, kind, text in rows]
    return "\n".join([f"## {title}", "", "| Name | Type | What it is |", "|---|---|---|", *lines]) if lines else ""
