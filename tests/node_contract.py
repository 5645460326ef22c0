"""What saved workflows rely on: node ids, inputs in order with types, defaults and choices, outputs in order.

Beside it lies what API prompts hold that a landed version has written or taken: `accepted`, the smallest sets of inputs
that it took, and `saved`, all inputs with the values that they then had. The default of an optional input may change
for new nodes in the editor; a prompt that leaves the input out goes on to mean the first one (`meant`).

`python tests/node_contract.py` writes the present state into both files. Do that for an addition only (a new node, a
new optional input behind the last one, a new choice, wider limits, an input that may be left out), and read the
difference before you commit it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden" / "node_contract.json"
LANDED = GOLDEN.with_name("landed_inputs.json")
KEPT_OPTIONS = ("default", "min", "max", "options", "multiline", "control_after_generate", "forceInput")
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


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
    """What of an old promise a new one does not keep.

    Inputs are told by their names, as the editor and API prompts tell them; but the values of widgets are saved without
    names, so widgets keep their order. What is required may become optional where it has a default to stand for it.
    """
    inputs = {each["name"]: each for each in new["inputs"]}
    outputs = [new["outputs"][place] if place < len(new["outputs"]) else {} for place in range(len(old["outputs"]))]
    pairs = [(each, inputs.get(each["name"], {})) for each in old["inputs"]]
    pairs += list(zip(old["outputs"], outputs, strict=True))
    found = [
        f"{before['name']}: {key} was {value!r}, is {after.get(key)!r}"
        for before, after in pairs
        for key, value in before.items()
        if not _keeps(key, value, after.get(key), before)
    ]
    for kind, of in (("widgets", _widgets), ("links", _links)):
        was, now = of(old), of(new)
        found += [] if now[: len(was)] == was else [f"{kind} were {was} in this order, are {now}"]
    missing = [each["name"] for each in new["inputs"] if each["required"] and each["name"] not in _names(old)]
    return found + [f"{name}: is new and required" for name in missing]


def _names(node: Mapping[str, Any]) -> list[str]:
    return [each["name"] for each in node["inputs"]]


def _widgets(node: Mapping[str, Any]) -> list[str]:
    """The inputs whose values the editor saves, in its order; a control behind a seed goes where the seed goes."""
    return [each["name"] for each in node["inputs"] if is_widget(each)]


def _links(node: Mapping[str, Any]) -> list[str]:
    return [each["name"] for each in node["inputs"] if not is_widget(each)]


def is_widget(entry: Mapping[str, Any]) -> bool:
    """Whether an input of a promise has a value that is typed in."""
    return entry["type"] in WIDGETS and not entry.get("forceInput")


def _keeps(key: str, before: Any, after: Any, entry: Mapping[str, Any]) -> bool:
    if key == "required":
        return before == after or (before is True and after is False and "default" in entry)
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


def landed() -> dict[str, dict[str, list[Any]]]:
    """The inputs of prompts of all versions, by node id."""
    return json.loads(LANDED.read_text(encoding="utf-8"))


def meant(node_id: str, name: str) -> Any:
    """What an optional input is where a prompt leaves it out: the default of the version that it came with."""
    return next(each[name] for each in landed()[node_id]["saved"] if name in each)


def with_version(
    known: Mapping[str, Mapping[str, list[Any]]], version: Mapping[str, Any]
) -> dict[str, dict[str, list[Any]]]:
    """What was known of prompts, and those of one more version."""
    added = {node_id: dict(each) for node_id, each in known.items()}
    for node_id, node in version.items():
        before = added.setdefault(node_id, {"accepted": [], "saved": []})
        required = [each["name"] for each in node["inputs"] if each["required"]]
        values = {each["name"]: each.get("default") for each in node["inputs"]}
        sets = [*before["accepted"], required]
        smallest = [each for each in sets if not any(set(other) < set(each) for other in sets)]
        before["accepted"] = [each for place, each in enumerate(smallest) if each not in smallest[:place]]
        before["saved"] = before["saved"] if values in before["saved"] else [*before["saved"], values]
    return added


def _by_node(content: Mapping[str, Any]) -> str:
    """JSON with a line for each node."""
    lines = ",\n".join(f" {json.dumps(node_id)}: {json.dumps(each)}" for node_id, each in content.items())
    return f"{{\n{lines}\n}}\n"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(present(), indent=1) + "\n", encoding="utf-8")
    LANDED.write_text(_by_node(with_version(landed(), present())), encoding="utf-8")
