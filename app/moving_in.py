"""Replace the nodes of other packs in a graph, and leave out what nobody has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..host.errors import GraphError, named, shown
from ..host.graph.mapping import is_link
from ..host.graph.workflow import Prompt
from ..host.schema.object_info import inputs_of
from ..nodes.moving_in import PARTS_OF, STAND_INS
from ..nodes.moving_in.packs import PACKS
from ..nodes.moving_in.rules import SELF, Parts

Info = Mapping[str, Mapping[str, Any]]

COMPUTED: Mapping[str, Any] = {
    **dict.fromkeys(("nag_scale", "nag_tau", "nag_alpha", "nag_sigma_end", "weight"), (int, float)),
    **dict.fromkeys(("tiling", "copy_model", "copy_vae", "weight_type", "preset"), str),
}
"""Inputs that are translated, and what they may be: a link cannot be."""


def readable(object_info: Info) -> dict[str, Any]:
    """Return what is known of node classes, with those of other packs that can be replaced."""
    return PACKS | {ours: PACKS[theirs] for ours, theirs in STAND_INS.items()} | dict(object_info)


def replace(prompt: Prompt, object_info: Info) -> tuple[Prompt, list[str]]:
    """Return a graph without nodes of other packs, and a line for everything that is not as it was.

    Nodes that are not known and have no counterpart are left out, and so is what depends on them.

    Raises:
        GraphError: nothing that saves or shows is left, or an input of a node is missing.
    """
    made = {
        node_id: _parts(node_id, node, object_info) for node_id, node in prompt.items() if _foreign(node, object_info)
    }
    said = [f"{named(i, prompt[i]['class_type'])}: {line}" for i, parts in made.items() for line in _told(parts)]
    replaced: Prompt = {}
    for node_id, node in prompt.items():
        if node_id not in made:
            replaced[node_id] = node
            continue
        for name, part in made[node_id].nodes.items():
            replaced[_place(node_id, name)] = part | {"_meta": node.get("_meta", {})}
    linked = {
        node_id: node | {"inputs": {name: _linked(value, made) for name, value in node["inputs"].items()}}
        for node_id, node in replaced.items()
    }
    kept, lost = _without_unknown(linked, object_info)
    if not any(object_info[node["class_type"]]["output_node"] for node in kept.values()):
        raise GraphError([*lost, "nothing that saves or shows is left; open the workflow in ComfyUI with its packs"])
    return kept, said + lost


def _foreign(node: Mapping[str, Any], object_info: Info) -> bool:
    return _kind(node) in PACKS and node["class_type"] not in object_info


def _kind(node: Mapping[str, Any]) -> str:
    """Return the other pack's class of a node, which a node that stands in for it has taken."""
    return STAND_INS.get(node["class_type"], node["class_type"])


def _told(parts: Parts) -> list[str]:
    kinds = ", ".join(node["class_type"] for node in parts.nodes.values())
    return [f"replaced by {kinds}", *parts.notes]


def _place(node_id: str, name: str) -> str:
    return f"{node_id}_{name}" if name != SELF else node_id


def _parts(node_id: str, node: Mapping[str, Any], object_info: Info) -> Parts:
    """Return what takes the place of a node; links between its parts name their places."""
    kind = _kind(node)
    inputs = inputs_of(PACKS[kind])
    given = {name: entry.options["default"] for name, entry in inputs.items() if "default" in entry.options}
    given |= node["inputs"]
    missing = [name for name, entry in inputs.items() if entry.required and name not in given]
    if missing:
        raise GraphError([f"{named(node_id, kind)}: {', '.join(missing)} missing; link it in the workflow"])
    for name in inputs:
        if name in COMPUTED and not isinstance(given[name], COMPUTED[name]):
            raise GraphError(
                [f"{named(node_id, kind)}: {name} is {shown(given[name])}; type a value in, to translate it"]
            )
    adapters = inputs_of(object_info["TesseraLoadIPAdapter"])["ip_adapter"].options["options"]
    parts = PARTS_OF[kind](given, list(adapters))
    for part in parts.nodes.values():
        part["inputs"] = {name: _own(value, node_id) for name, value in part["inputs"].items()}
    parts.outputs = [_own(link, node_id) for link in parts.outputs]
    return parts


def _own(value: Any, node_id: str) -> Any:
    inside = isinstance(value, list) and isinstance(value[0], str) and value[0].startswith("@")
    return [_place(node_id, value[0][1:]), value[1]] if inside else value


def _linked(value: Any, made: Mapping[str, Parts], passed: frozenset[str] = frozenset()) -> Any:
    """Return what a link to a replaced node leads to: a part of it, or what it was given and passes on."""
    if not is_link(value) or value[0] not in made or value[0] in passed:
        return value
    node_id, output = value
    outputs = made[node_id].outputs
    if output >= len(outputs):
        return value
    target = outputs[output]
    inside = target[0] in {_place(node_id, name) for name in made[node_id].nodes}
    return target if inside else _linked(target, made, passed | {node_id})


def _without_unknown(prompt: Prompt, object_info: Info) -> tuple[Prompt, list[str]]:
    lost = {i: "not known, and has no counterpart" for i, n in prompt.items() if n["class_type"] not in object_info}
    while True:
        behind = {
            node_id: f"it needs node {value[0]}"
            for node_id, node in prompt.items()
            for value in node["inputs"].values()
            if node_id not in lost and is_link(value) and value[0] in lost
        }
        if not behind:
            break
        lost |= behind
    lines = [f"{named(i, prompt[i]['class_type'])}: left out, {why}" for i, why in lost.items()]
    return {node_id: node for node_id, node in prompt.items() if node_id not in lost}, lines
