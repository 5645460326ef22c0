"""Group nodes of older UI-format files, which were drawn once in `extra.groupNodes`, become subgraphs.

A group node shows the widgets and inputs of the nodes inside that nothing inside feeds. Its values stand in the order
of those nodes; the ids of what is inside are `5:0`, `5:1`, ... for the group node 5.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import GraphError, named, shown
from ..schema.object_info import InputInfo, inputs_of
from .group_layout import Layout, lay_out, link_rows
from .ui_graph import SUBGRAPH_INPUT, SUBGRAPH_OUTPUT, slots
from .widget_slots import positions
from .widgets import default, stored_values

PREFIXES = ("workflow>", "workflow/")
MOST_FRAMES = 1000

ObjectInfos = Mapping[str, Mapping[str, Any]]
Node = dict[str, Any]


def unfold(document: Mapping[str, Any], object_info: ObjectInfos) -> Mapping[str, Any]:
    """Return a document in which every group node is the frame of a subgraph of its own.

    Raises:
        GraphError: a group contains itself, or is not what the format says.
    """
    extra = document.get("extra")
    groups = extra.get("groupNodes") if isinstance(extra, dict) else None
    if not isinstance(groups, dict) or not groups:
        return document
    unfolding = _Unfolding(groups, object_info, [])
    top = unfolding.level(document, ())
    inside = document.get("definitions")
    listed = inside.get("subgraphs") if isinstance(inside, dict) else None
    subgraphs = [unfolding.level(each, ()) for each in listed] if isinstance(listed, list) else []
    return {**top, "definitions": {"subgraphs": [*subgraphs, *unfolding.made]}}


@dataclass
class _Unfolding:
    groups: Mapping[str, Any]
    object_info: ObjectInfos
    made: list[Node]

    def level(self, level: Any, around: tuple[str, ...]) -> Any:
        """Return a level of the graph whose group nodes are frames."""
        nodes = level.get("nodes") if isinstance(level, dict) else None
        return {**level, "nodes": [self._node(node, around) for node in nodes]} if isinstance(nodes, list) else level

    def _node(self, node: Any, around: tuple[str, ...]) -> Any:
        group = group_name(node.get("type"), self.groups) if isinstance(node, dict) else None
        if group is None:
            return node
        where = named(str(node.get("id")), str(node["type"]))
        if group in around:
            raise GraphError([f"{where}: the group {shown(group)} contains itself; take it out of itself"])
        if len(self.made) >= MOST_FRAMES:
            raise GraphError([f"{where}: more than {MOST_FRAMES} group nodes; use subgraphs instead"])
        layout = self._layout(group, (*around, group))
        definition = _definition(f"group node {len(self.made)}", node, layout, self.object_info)
        self.made.append(definition)
        definition["nodes"] = [self._node(each, (*around, group)) for each in definition["nodes"]]
        return _frame(node, definition)

    def _layout(self, group: str, around: tuple[str, ...]) -> Layout:
        """Return what a group shows; groups inside it show what they show themselves."""
        infos: ChainMap[str, Mapping[str, Any]] = ChainMap({}, self.object_info)  # pyright: ignore[reportArgumentType]
        for type_ in {str(node.get("type")) for node in slots(self.groups[group], "nodes")}:
            inner = group_name(type_, self.groups)
            if inner is not None and inner not in around:
                infos[type_] = self._layout(inner, (*around, inner)).info
        return lay_out(group, self.groups[group], infos)


def group_name(type_: Any, groups: Mapping[str, Any]) -> str | None:
    """Return the group that a node's type names."""
    for prefix in PREFIXES:
        if isinstance(type_, str) and type_.startswith(prefix):
            name = type_.removeprefix(prefix)
            if isinstance(groups.get(name), dict):
                return name
    return None


def _frame(node: Node, definition: Node) -> Node:
    """Return the group node as a frame; inputs that are named otherwise than expected are known by their order."""
    names = [each["name"] for each in definition["inputs"]]
    inputs = [
        {**slot, "name": names[place] if slot.get("name") not in names and place < len(names) else slot.get("name")}
        for place, slot in enumerate(slots(node, "inputs"))
    ]
    return {**node, "type": definition["id"], "inputs": inputs, "widgets_values": None}


def _definition(name: str, node: Node, layout: Layout, object_info: ObjectInfos) -> Node:
    values = _values(node, layout)
    nodes: list[Node] = [
        {**each, "id": place, "inputs": [{**slot, "link": None} for slot in slots(each, "inputs")]}
        for place, each in enumerate(layout.nodes)
    ]
    for place, each in enumerate(nodes):
        own = {spot.input: values[spot.name] for spot in layout.widgets if spot.node == place}
        if each.get("type") == "PrimitiveNode":
            each["widgets_values"] = [own["value"]] if "value" in own else each.get("widgets_values")
        elif each.get("type") in object_info:
            each["widgets_values"] = stored_values(each, object_info[each["type"]]) | own
        elif own:
            each["widgets_values"] = own
    links: list[Node] = []
    for origin, origin_slot, target, target_slot in link_rows(layout.links):
        if target < len(nodes) and target_slot < len(nodes[target]["inputs"]):
            nodes[target]["inputs"][target_slot]["link"] = len(links)
            links.append(_link(len(links), origin, origin_slot, target, target_slot))
    for slot, spot in enumerate(layout.inputs):
        links.append(_link(len(links), SUBGRAPH_INPUT, slot, spot.node, _input(nodes[spot.node], spot.input)))
        nodes[spot.node]["inputs"][links[-1]["target_slot"]]["link"] = links[-1]["id"]
    for slot, (origin, origin_slot) in enumerate(layout.outputs):
        links.append(_link(len(links), origin, origin_slot, SUBGRAPH_OUTPUT, slot))
    outer = [{"name": spot.name} for spot in layout.inputs]
    return {"id": name, "name": layout.name, "nodes": nodes, "links": links, "inputs": outer}


def _values(node: Node, layout: Layout) -> dict[str, Any]:
    """Return the value of each widget that the group shows."""
    info = {"input": {"required": {spot.name: (spot.info.type, spot.info.options) for spot in layout.widgets}}}
    given = node.get("widgets_values")
    by_name: Mapping[str, Any] = given if isinstance(given, dict) else {}
    if isinstance(given, list):
        by_name = {name: given[place] for name, place in positions(given, info).items()}
    shown_as: Mapping[str, InputInfo] = inputs_of(info)
    return {name: default(each) if by_name.get(name) is None else by_name[name] for name, each in shown_as.items()}


def _input(node: Node, name: str) -> int:
    """Return the place of an input by its name; one that the file does not list is added."""
    names = [slot.get("name") for slot in node["inputs"]]
    if name not in names:
        node["inputs"].append({"name": name, "type": "*"})
        return len(names)
    return names.index(name)


def _link(number: int, origin: Any, origin_slot: int, target: Any, target_slot: int) -> Node:
    return {
        "id": number,
        "origin_id": origin,
        "origin_slot": origin_slot,
        "target_id": target,
        "target_slot": target_slot,
    }
