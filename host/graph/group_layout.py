"""What a group node shows of the nodes inside: its widgets, inputs and outputs, in order and under which names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import GraphError, shown
from ..schema.object_info import InputInfo, inputs_of
from .ui_graph import slots
from .widget_slots import control_count

ObjectInfos = Mapping[str, Mapping[str, Any]]
Row = tuple[int, int, int, int]
MOST_INPUTS = 5000
PRIMITIVE, REROUTE = "PrimitiveNode", "Reroute"
"""Nodes that are seen through: a value that goes where it is linked, and a corner of a link."""


@dataclass(frozen=True)
class Spot:
    """An input of a node inside, and the name under which the group shows it."""

    name: str
    node: int
    input: str
    info: InputInfo


@dataclass
class Layout:
    """What a group shows: `widgets` to type in, `inputs` to link, and `outputs` as node inside and its output."""

    name: str
    nodes: list[Mapping[str, Any]]
    links: list[Any]
    widgets: list[Spot] = field(default_factory=list)
    inputs: list[Spot] = field(default_factory=list)
    outputs: list[tuple[int, int]] = field(default_factory=list)

    @property
    def info(self) -> dict[str, Any]:
        """The group in the shape of /object_info, for groups around it."""
        shown_first = [*self.widgets, *self.inputs]
        required = {spot.name: (spot.info.type, spot.info.options) for spot in shown_first}
        return {"input": {"required": required}, "output": ["*"] * len(self.outputs)}


def lay_out(name: str, group: Mapping[str, Any], object_info: ObjectInfos) -> Layout:
    """Read what a group holds.

    Raises:
        GraphError: it holds something that is not a node.
    """
    nodes = slots(group, "nodes")
    if not nodes or not all(isinstance(node.get("type"), str) for node in nodes):
        raise GraphError([f"group node {shown(name)}: expected nodes with a type inside; save it again"])
    reading = _Reading(group, Layout(name, nodes, _listed(group.get("links"))), object_info)
    later = [spot for place in range(len(nodes)) for spot in reading.node(place)]
    for place, each in later:
        reading.show_input(place, each)
    if len(reading.layout.widgets) + len(reading.layout.inputs) > MOST_INPUTS:
        raise GraphError([f"group node {shown(name)}: shows more than {MOST_INPUTS} inputs; take groups out of it"])
    return reading.layout


def link_rows(links: list[Any]) -> Iterator[Row]:
    """Yield the links between nodes inside: node, output, node, input. Those to the outside have no node at one end."""
    for link in links:
        row = [_number(part) for part in link[:4]] if isinstance(link, list) else []
        if len(row) == 4 and all(part is not None for part in row):
            yield row[0] or 0, row[1] or 0, row[2] or 0, row[3] or 0


def _number(part: Any) -> int | None:
    if isinstance(part, str) and part.isascii() and part.isdigit() and len(part) < 9:
        return int(part)
    return part if isinstance(part, int) and part >= 0 else None


def _controlled(each: InputInfo) -> InputInfo:
    """Return a seed whose value keeps what says how it changes, under whatever name the group shows it."""
    return replace(each, options={**each.options, "control_after_generate": control_count(each) > 0})


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


class _Reading:
    def __init__(self, group: Mapping[str, Any], layout: Layout, object_info: ObjectInfos) -> None:
        self.layout = layout
        self.object_info = object_info
        self.config = group.get("config")
        rows = list(link_rows(layout.links))
        self.fed = {(target, slot) for _, _, target, slot in rows}
        self.feeding = {(origin, slot) for origin, slot, _, _ in rows}
        outside = [row[:2] for row in _listed(group.get("external")) if isinstance(row, list) and len(row) > 2]
        self.outside = {(_number(node), _number(slot)) for node, slot in outside}
        self.seen: dict[str, int] = {}

    def node(self, place: int) -> list[tuple[int, InputInfo]]:
        """Show what one node has; return its widgets that were made inputs, which come behind all others."""
        node = self.layout.nodes[place]
        inputs, outputs = self._declared(place, node)
        names = [slot.get("name") for slot in slots(node, "inputs")]
        linked = {
            str(slot.get("name"))
            for slot in slots(node, "inputs")
            if isinstance(slot.get("widget"), dict) and slot["widget"].get("name") == slot.get("name")
        }
        widgets = [each for each in inputs if each.is_widget]
        for each in widgets:
            if each.name not in linked:
                self.layout.widgets.append(Spot(self._name(place, each.name), place, each.name, _controlled(each)))
        for each in inputs:
            if not each.is_widget:
                self.show_input(place, each)
        for slot in range(outputs):
            hidden = (place, slot) in self.feeding and (place, slot) not in self.outside
            if self._configured(place, "output", str(slot)).get("visible", not hidden):
                self.layout.outputs.append((place, slot))
        moved = [each for each in widgets if each.name in linked]
        return [(place, each) for each in sorted(moved, key=lambda each: names.index(each.name))]

    def show_input(self, place: int, each: InputInfo) -> None:
        """Show an input, unless something inside feeds it or it was hidden."""
        names = [slot.get("name") for slot in slots(self.layout.nodes[place], "inputs")]
        at = names.index(each.name) if each.name in names else None
        at = 0 if self.layout.nodes[place]["type"] == REROUTE else at
        if at is not None and (place, at) in self.fed:
            return
        spot = Spot(self._name(place, each.name), place, each.name, each)
        if self._configured(place, "input", each.name).get("visible") is not False:
            self.layout.inputs.append(spot)

    def _declared(self, place: int, node: Mapping[str, Any]) -> tuple[list[InputInfo], int]:
        """Return the inputs of a node's class and how many outputs it has."""
        info = self.object_info.get(node["type"])
        if info is not None:
            return list(inputs_of(info).values()), len(info["output"])
        feeds = any(origin == place for origin, _ in self.feeding)
        if node["type"] == PRIMITIVE:
            kind = str((slots(node, "outputs") or [{}])[0].get("type"))
            controlled = {"control_after_generate": True} if kind in ("INT", "FLOAT", "COMBO") else {}
            return ([InputInfo("value", kind, True, controlled)], 1) if feeds else ([], 0)
        if node["type"] == REROUTE:
            within = feeds and (place, 0) in self.fed and (place, 0) not in self.outside
            name = str((slots(node, "inputs") or [{}])[0].get("name") or "")
            return ([], 0) if within else ([InputInfo(name, "*", True, {"forceInput": True})], 1)
        given = [InputInfo(str(slot.get("name")), "*", True, {}) for slot in slots(node, "inputs")]
        return given, len(slots(node, "outputs"))

    def _configured(self, place: int, kind: str, key: str) -> Mapping[str, Any]:
        """Return what was set for an input or output in the dialog for group nodes."""
        found: Any = self.config
        for part in (str(place), kind, key):
            found = found.get(part) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def _name(self, place: int, name: str) -> str:
        """Return the name that the group shows.

        Names that are taken have the node's title before them, then a number.
        """
        node = self.layout.nodes[place]
        labels = [slot.get("label") for slot in slots(node, "inputs") if slot.get("name") == name]
        unique = key = str(self._configured(place, "input", name).get("name") or (labels + [None])[0] or name)
        if unique in self.seen or (node["type"] == PRIMITIVE and node.get("title")):
            prefix = f"{node.get('title') or node['type']} "
            unique = key = f"{prefix}{name}"
            if unique in self.seen:
                unique = f"{prefix}{self.seen[unique]} {name}"
        self.seen[key] = self.seen.get(key, 1) + 1
        return unique
