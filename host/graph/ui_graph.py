"""A UI-format graph: its nodes, links and nested subgraphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import GraphError, named, shown
from .virtual_nodes import SETTERS, constant

SUBGRAPH_INPUT = "-10"
SUBGRAPH_OUTPUT = "-20"
MUTED = 2
BYPASSED = 4
MOST_NODES = 100_000
MOST_LEVELS = 100
STORED = object()


@dataclass(frozen=True)
class Link:
    """A link of the graph."""

    id: str
    origin: str
    origin_slot: int
    target: str
    target_slot: int


@dataclass
class Graph:
    """One level of the graph.

    Attributes:
        path: "" at the top and "5:" inside the subgraph of node 5.
        outer: the level around it, and the node of this one there: its frame.
        inner: the levels inside, by the ids of their frames.
        places: for each input of the frame, which of the definition's inputs it is.
        promoted: values that stand on the frame, by the definition's inputs.
        overrides: values that stand on the frame, by node and widget inside; `STORED` for the one that stands there.
    """

    path: str
    nodes: dict[str, Mapping[str, Any]]
    links: dict[str, Link]
    definition: Mapping[str, Any]
    outer: tuple[Graph, Mapping[str, Any]] | None = None
    inner: dict[str, Graph] = field(default_factory=dict)
    places: list[int | None] = field(default_factory=list)
    promoted: dict[int, Any] = field(default_factory=dict)
    overrides: dict[tuple[str, str], Any] = field(default_factory=dict)

    def link_into(self, node: Mapping[str, Any], index: int) -> Link | None:
        """Return the line that ends at an input of a node."""
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

    @cached_property
    def setters(self) -> dict[str | None, Mapping[str, Any]]:
        """The nodes of this level that give their input a name, by that name; the first where several do."""
        return {constant(node): node for node in reversed(self.nodes.values()) if node["type"] in SETTERS}

    def setter(self, name: str | None) -> tuple[Graph, Mapping[str, Any]] | None:
        """Return the node that a name stands for, on this level or the nearest around it, and its level."""
        level: Graph | None = self if name is not None else None
        while level is not None:
            if name in level.setters:
                return level, level.setters[name]
            level = level.outer[0] if level.outer else None
        return None

    def link_out(self, slot: int) -> Link | None:
        """Return the line that ends at an output of this subgraph's frame."""
        ends = (link for link in self.links.values() if link.target == SUBGRAPH_OUTPUT and link.target_slot == slot)
        return next(ends, None)

    def name(self, node: Mapping[str, Any], input_name: str | None = None) -> str:
        """Return how a node is named in messages."""
        return named(f"{self.path}{node['id']}", node["type"], input_name)


def slots(node: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """Return the "inputs" or "outputs" of a node as the file lists them."""
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
                raise GraphError([f"{graph.name(node)}: the subgraph contains itself; take it out of itself"])
            inner = _read_level(definitions[node["type"]], f"{graph.path}{node['id']}:", (graph, node))
            count += len(inner.nodes)
            if len(around) >= MOST_LEVELS:
                raise GraphError([f"{graph.name(node)}: more than {MOST_LEVELS} subgraphs in each other; nest fewer"])
            if count > MOST_NODES:
                raise GraphError([f"the subgraphs make more than {MOST_NODES} nodes; nest fewer of them"])
            graph.inner[str(node["id"])] = inner
            inner.places = _places(inner, slots(node, "inputs"))
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
    # Old files have null where a link was taken away.
    read = [_read_link(link) for link in _list(level.get("links")) if link is not None]
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


def _places(inner: Graph, given: list[Mapping[str, Any]]) -> list[int | None]:
    """Return which input of a definition each input of its frame is: by name and type, else by name.

    Names may repeat.
    """
    free = {index: (slot.get("name"), slot.get("type")) for index, slot in enumerate(slots(inner.definition, "inputs"))}
    places: list[int | None] = []
    for slot in given:
        name, kind = slot.get("name"), slot.get("type")
        same = [index for index, each in free.items() if each == (name, kind)]
        named_so = [index for index, each in free.items() if each[0] == name]
        place = next(iter(same + named_so), None)
        places.append(place)
        if place is not None:
            del free[place]
    return places


def every_node(graph: Graph) -> Iterator[tuple[Graph, Mapping[str, Any]]]:
    """Yield the nodes that run: frames are replaced by what is inside, muted and bypassed ones left out."""
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
