"""What saved workflows rely on: node ids, inputs in order with types, defaults and choices, outputs in order.

`python tests/node_contract.py` writes the present state into the golden file. Do that for an addition only (a new node,
a new input behind the last one, a new choice, wider limits), and read the difference before you commit it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden" / "node_contract.json"
KEPT_OPTIONS = ("default", "min", "max", "options", "multiline", "control_after_generate")


def promise(info: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an /object_info entry that must not change."""
    return {
        "inputs": [
            _input(name, group == "required", *kind)
            for group in ("required", "optional")
            for name, kind in info["input"].get(group, {}).items()
        ],
        "outputs": [
            {"name": name, "type": kind} for name, kind in zip(info["output_name"], info["output"], strict=True)
        ],
    }


def _input(name: str, required: bool, kind: Any, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    options = dict(options or {})
    if isinstance(kind, list):
        # How older nodes declare their choices.
        kind, options["options"] = "COMBO", kind
    kept = {key: options[key] for key in KEPT_OPTIONS if options.get(key) is not None}
    return {"name": name, "type": kind, "required": required} | kept


def breaks(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What of an old promise a new one does not keep."""
    found = []
    for part in ("inputs", "outputs"):
        for place, before in enumerate(old[part]):
            after = new[part][place] if place < len(new[part]) else {}
            found += [
                f"{part}[{place}] {before['name']}: {key} was {value!r}, is {after.get(key)!r}"
                for key, value in before.items()
                if not _keeps(key, value, after.get(key))
            ]
    return found


def _keeps(key: str, before: Any, after: Any) -> bool:
    if key == "options":
        return set(before) <= set(after or ())
    if key in ("min", "max"):
        return after is not None and (after <= before if key == "min" else after >= before)
    return before == after


def golden() -> dict[str, Any]:
    """The promises made, by node id."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def present() -> dict[str, Any]:
    """The promises that the nodes would make now, by node id."""
    from tessera.nodes import NODES

    return {node.define_schema().node_id: promise(node.GET_NODE_INFO_V1()) for node in NODES}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(present(), indent=1) + "\n", encoding="utf-8")
