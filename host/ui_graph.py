"""A UI-format graph: nodes, links and nested subgraphs, and where each input really comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import GraphError, named, shown
from .object_info import accepts
from .widgets import CONTROL_VALUES

SUBGRAPH_INPUT = "-10"
SUBGRAPH_OUTPUT = "-20"
MUTED = 2
BYPASSED = 4
MOST_NODES = 100_000


@dataclass(frozen=True)
class Link:
    """A line of the drawing."""

    id: str
    origin: str
    origin_slot: int
    target: str
    target_slot: int


@dataclass(frozen=True)
class Value:
    """What an input gets that comes from a widget elsewhere: a primitive node or the frame of a subgraph."""

    value: Any


@dataclass
class Graph:
    """One level of the drawing. `path` is "" at the top and "5:" inside the subgraph that node 5 stands for."""

    path: str
    nodes: dict[str, Mapping[str, Any]]
    links: dict[str, Link]
    definition: Mapping[str, Any]
    outer: tuple[Graph, Mapping[str, Any]] | None = None
    inner: dict[str, Graph] = field(default_factory=dict)
    promoted: dict[int, Any] = field(default_factory=dict)
    overrides: dict[tuple[str, str], Any] = field(default_factory=dict)

    def link_into(self, node: Mapping[str, Any], index: int) -> Link | None:
        """The line that ends at an input of a node."""
        inputs = slots(node, "inputs")
        link_id = inputs[index].get("link") if 0 <= index < len(inputs) else None
        if link_id is None:
            return None
        if str(link_id) not in self.links:
            where = self.name(node, str(inputs[index].get("name")))
            raise GraphError(
                [f"{where}: link {shown(link_id)} is not in the file; connect the input anew and save again"]
            )
        return self.links[str(link_id)]

    def link_out(self, slot: int) -> Link | None:
        """The line that ends at an output of this subgraph's frame."""
        ends = (link for link in self.links.values() if link.target == SUBGRAPH_OUTPUT and link.target_slot == slot)
        return next(ends, None)

    def name(self, node: Mapping[str, Any], input_name: str | None = None) -> str:
        """How a node is named in messages."""
        return named(f"{self.path}{node['id']}", node["type"], input_name)


def slots(node: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """The "inputs" or "outputs" of a node as the file lists them."""
    return [slot if isinstance(slot, dict) else {} for slot in _list(node.get(kind))]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def read_graph(document: Mapping[str, Any]) -> Graph:
    """Read a UI-format file.

    Raises:
        GraphError: the file is not what the format says, or its subgraphs never end.
    """
    inside = document.get("definitions")
    listed = _list(inside.get("subgraphs")) if isinstance(inside, dict) else []
    definitions = {str(each.get("id")): each for each in listed if isinstance(each, dict)}
    top = _read_level(document, "", None)
    count = len(top.nodes)
    pending = [(top, frozenset[str]())]
    while pending:
        graph, around = pending.pop()
        for node in graph.nodes.values():
            if node["type"] not in definitions:
                continue
            if node["type"] in around:
                raise GraphError([f"{graph.name(node)}: the subgraph contains itself; take it out of its own drawing"])
            inner = _read_level(definitions[node["type"]], f"{graph.path}{node['id']}:", (graph, node))
            count += len(inner.nodes)
            if count > MOST_NODES:
                raise GraphError([f"the subgraphs make more than {MOST_NODES} nodes; nest fewer of them"])
            graph.inner[str(node["id"])] = inner
            promote(inner)
            pending.append((inner, around | {node["type"]}))
    return top


def _read_level(level: Mapping[str, Any], path: str, outer: tuple[Graph, Mapping[str, Any]] | None) -> Graph:
    nodes: dict[str, Mapping[str, Any]] = {}
    for node in _list(level.get("nodes")):
        if not isinstance(node, dict) or "id" not in node or not isinstance(node.get("type"), str):
            raise GraphError(
                [f"found {shown(node)} among the nodes; expected an object with id and type; save it again"]
            )
        if str(node["id"]) in nodes:
            raise GraphError([f"two nodes have the id {shown(node['id'])}; give one of them another and save again"])
        nodes[str(node["id"])] = node
    read = [_read_link(link) for link in _list(level.get("links"))]
    return Graph(path, nodes, {link.id: link for link in read}, level, outer)


def _read_link(link: Any) -> Link:
    if isinstance(link, dict):
        link = [link.get(key) for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
    if not isinstance(link, list) or len(link) < 5 or not _is_slot(link[2]) or not _is_slot(link[4]):
        raise GraphError([f"found {shown(link)} among the links; expected id, node, slot, node, slot; save it again"])
    return Link(str(link[0]), str(link[1]), int(link[2]), str(link[3]), int(link[4]))


def _is_slot(slot: Any) -> bool:
    # Old files hold slots as text.
    return isinstance(slot, int) or (isinstance(slot, str) and slot.isascii() and slot.isdigit() and len(slot) < 9)


def promote(inner: Graph) -> None:
    """Take over the values that stand on the frame of a subgraph instead of on the nodes inside.

    They belong to the frame's inputs in order or, in files with `proxyWidgets`, to the widgets that are named there.
    """
    assert inner.outer is not None
    graph, frame = inner.outer
    values = frame.get("widgets_values")
    properties = frame.get("properties")
    proxies = properties.get("proxyWidgets") if isinstance(properties, dict) else None
    if isinstance(values, list) and isinstance(proxies, list) and proxies:
        _promote_proxies(inner, proxies, values)
    elif isinstance(values, list):
        _promote_in_order(inner, values)
    elif isinstance(values, dict):
        inner.promoted.update({slot: values[name] for name, slot in _frame_slots(inner).items() if name in values})
    # A frame inside a frame: what the outer one holds of it comes first.
    for (node_id, name), value in graph.overrides.items():
        if node_id == str(frame["id"]) and name in _frame_slots(inner):
            inner.promoted[_frame_slots(inner)[name]] = value


def _frame_slots(inner: Graph) -> dict[str, int]:
    return {str(slot.get("name")): index for index, slot in enumerate(slots(inner.definition, "inputs"))}


def _widgets_of_frame(inner: Graph) -> dict[tuple[str, str], int]:
    """The inputs of a frame that stand for widgets: from node and widget inside to the frame's slot."""
    return {
        (str(node["id"]), str(slot.get("name"))): link.origin_slot
        for node in inner.nodes.values()
        for slot in slots(node, "inputs")
        if "widget" in slot and (link := inner.links.get(str(slot.get("link")))) and link.origin == SUBGRAPH_INPUT
    }


def _promote_proxies(inner: Graph, proxies: list[Any], values: list[Any]) -> None:
    places, linked = _frame_slots(inner), _widgets_of_frame(inner)
    for proxy, value in zip(proxies, values, strict=False):
        if not isinstance(proxy, list) or len(proxy) < 2 or value is None:
            continue
        source = (str(proxy[0]), str(proxy[1]))
        if source[0] == "-1" and source[1] in places:
            inner.promoted[places[source[1]]] = value
        elif source in linked:
            inner.promoted[linked[source]] = value
        else:
            inner.overrides[source] = value


def _promote_in_order(inner: Graph, values: list[Any]) -> None:
    places = sorted(set(_widgets_of_frame(inner).values()))
    if len(values) > len(places):
        values = [value for value in values if not (isinstance(value, str) and value in CONTROL_VALUES)]
    inner.promoted.update({at: value for at, value in zip(places, values, strict=False) if value is not None})


def source(graph: Graph, node: Mapping[str, Any], index: int) -> tuple[str, int] | Value | None:
    """What an input of a node gets: the id and output of another node, a value, or nothing.

    Reroutes, primitives, bypassed nodes and the frames of subgraphs are seen through as ComfyUI's interface does it.

    Raises:
        GraphError: a link leads nowhere, or round in a circle.
    """
    asked, wanted = graph.name(node, _slot_name(node, index)), str(slots(node, "inputs")[index].get("type"))
    link = graph.link_into(node, index)
    held: Value | None = None
    seen: set[tuple[str, str]] = set()
    while link is not None:
        if (graph.path, link.id) in seen:
            raise GraphError([f"{asked}: the links before it run in a circle; take one of them away"])
        seen.add((graph.path, link.id))
        if link.origin == SUBGRAPH_INPUT and graph.outer is not None:
            held = Value(graph.promoted[link.origin_slot]) if link.origin_slot in graph.promoted else held
            graph, link = graph.outer[0], _link_of_frame(graph, link.origin_slot)
            continue
        origin = graph.nodes.get(link.origin)
        if origin is None:
            raise GraphError([f"{asked}: linked to node {shown(link.origin)}, which is not there; connect it anew"])
        if origin.get("mode") == BYPASSED:
            link = graph.link_into(origin, _way_through(origin, link.origin_slot, wanted))
        elif link.origin in graph.inner:
            graph = graph.inner[link.origin]
            link = graph.link_out(link.origin_slot)
        elif origin["type"] == "Reroute":
            link = graph.link_into(origin, 0)
        elif origin["type"] == "PrimitiveNode":
            return _primitive_value(origin)
        else:
            return f"{graph.path}{link.origin}", link.origin_slot
    return held


def _slot_name(node: Mapping[str, Any], index: int) -> str:
    return str(slots(node, "inputs")[index].get("name"))


def _link_of_frame(inner: Graph, slot: int) -> Link | None:
    assert inner.outer is not None
    graph, frame = inner.outer
    names = [name for name, index in _frame_slots(inner).items() if index == slot]
    for index, each in enumerate(slots(frame, "inputs")):
        if each.get("name") in names:
            return graph.link_into(frame, index)
    return None


def _way_through(node: Mapping[str, Any], slot: int, wanted: str) -> int:
    """The input that a bypassed node hands on: the one beside the output if types allow it, else the first to fit."""
    inputs = [str(each.get("type")) for each in slots(node, "inputs")]
    outputs = [str(each.get("type")) for each in slots(node, "outputs")]
    if wanted in ("*", ""):
        return slot if slot < len(inputs) else 0
    given = outputs[slot] if slot < len(outputs) else "*"
    fitting = [i for i, kind in enumerate(inputs) if accepts(given, kind) and accepts(wanted, kind)]
    if slot in fitting:
        return slot
    exact = [i for i, kind in enumerate(inputs) if kind == wanted]
    return (exact + fitting + [-1])[0]


def _primitive_value(node: Mapping[str, Any]) -> Value | None:
    values = node.get("widgets_values")
    return Value(values[0]) if isinstance(values, list) and values else None


def every_node(graph: Graph) -> Iterator[tuple[Graph, Mapping[str, Any]]]:
    """The nodes that run: frames are replaced by what is inside, muted and bypassed ones left out."""
    pending = [graph]
    while pending:
        graph = pending.pop()
        for node_id, node in graph.nodes.items():
            if node.get("mode") in (MUTED, BYPASSED):
                continue
            if node_id in graph.inner:
                pending.append(graph.inner[node_id])
            else:
                yield graph, node
