"""Nodes of other packs that several of ours stand in for.

ComfyUI replaces one node by one. So it is offered a node with the other pack's inputs that expands into ours when it
runs, and shows what has no counterpart; `tessera run --replace` puts the same nodes into the graph before it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..replacements import REPLACEMENTS
from .packs import PACKS
from .rules import RULES, Parts

PREFIX = "TesseraFrom"
ALONE = {entry["old_node_id"] for entry in REPLACEMENTS}
"""Classes that one node of ours replaces as it is."""

STAND_INS: Mapping[str, str] = {
    PREFIX + "".join(filter(str.isalnum, kind)): kind for kind in PACKS if kind not in ALONE
}
"""By the id of a node that stands in, the class that it stands in for."""

ABSENT = {"set_value": None}
"""ComfyUI's server fails on a mapped input that a graph leaves out, and takes this first; its editor keeps the link."""

PARTS_OF: Mapping[str, Callable[[Mapping[str, Any], list[str]], Parts]] = RULES


def offers() -> list[dict[str, Any]]:
    """Return the entries of ComfyUI's NodeReplace for the nodes that stand in."""
    return [_offer(ours, theirs) for ours, theirs in STAND_INS.items()]


def _offer(ours: str, theirs: str) -> dict[str, Any]:
    entry = PACKS[theirs]
    named = {name: spec for kind in ("required", "optional") for name, spec in entry["input"][kind].items()}
    widgets: list[str] = []
    for name, (kind, options) in named.items():
        if kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
            # A file holds the value of the box below a seed as well.
            widgets += [name, "control_after_generate"] if options.get("control_after_generate") else [name]
    return {
        "old_node_id": theirs,
        "new_node_id": ours,
        "old_widget_ids": widgets,
        "input_mapping": [
            {"new_id": name, "old_id": name} | (ABSENT if name in entry["input"]["optional"] else {}) for name in named
        ],
        "output_mapping": [{"old_idx": n, "new_idx": n} for n in range(len(entry["output"]))],
    }
