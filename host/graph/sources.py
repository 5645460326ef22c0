"""Where each input of a UI-format graph really comes from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import GraphError, shown
from ..schema.object_info import accepts
from .promotion import Value
from .ui_graph import BYPASSED, MUTED, STORED, SUBGRAPH_INPUT, Graph, Link, slots
from .virtual_nodes import GETTERS, PRIMITIVE, constant, hands_on

log = logging.getLogger(__name__)

MOST_LINKS = 1000
"""Links that are followed to where an input comes from."""

FILLS_IN = "Run widget replace on values"
"""A primitive node with this property fills in the tokens of its value."""


@dataclass(frozen=True)
class OnFrame:
    """An input of a subgraph's frame that nothing is linked to: its widget decides."""

    inner: Graph
    slot: int


def source(graph: Graph, node: Mapping[str, Any], index: int) -> tuple[str, int] | Value | OnFrame | None:
    """Return what an input of a node gets: the id and output of another node, a value, or nothing but its own widget's.

    Reroutes, names instead of lines, primitives, bypassed nodes and the frames of subgraphs are seen through as
    ComfyUI's interface does it.

    Raises:
        GraphError: a link leads nowhere, round in a circle, or through too many nodes.
    """
    asked, wanted = graph.name(node, _slot_name(node, index)), str(slots(node, "inputs")[index].get("type"))
    link = graph.link_into(node, index)
    seen: set[tuple[str, str]] = set()
    while link is not None:
        if (graph.path, link.id) in seen:
            raise GraphError([f"{asked}: the links before it run in a circle; take one of them away"])
        if len(seen) >= MOST_LINKS:
            raise GraphError([f"{asked}: more than {MOST_LINKS} reroutes before it; connect it to what they lead to"])
        seen.add((graph.path, link.id))
        if link.origin == SUBGRAPH_INPUT and graph.outer is not None:
            inner, slot = graph, link.origin_slot
            graph, link = graph.outer[0], _link_of_frame(inner, slot)
            if link is None:
                return OnFrame(inner, slot)
            continue
        origin = graph.nodes.get(link.origin)
        if origin is None:
            raise GraphError([f"{asked}: linked to node {shown(link.origin)}, which is not there; connect it anew"])
        if origin["type"] == PRIMITIVE:
            return _primitive_value(graph, origin)
        if origin.get("mode") == MUTED:
            return None
        if origin.get("mode") == BYPASSED:
            link = graph.link_into(origin, _way_through(origin, link.origin_slot, wanted))
        elif link.origin in graph.inner:
            graph = graph.inner[link.origin]
            link = graph.link_out(link.origin_slot)
        elif hands_on(origin):
            link = graph.link_into(origin, 0)
        elif origin["type"] in GETTERS:
            graph, link = _link_of_name(graph, origin, asked)
        else:
            return f"{graph.path}{link.origin}", link.origin_slot
    return None


def _slot_name(node: Mapping[str, Any], index: int) -> str:
    return str(slots(node, "inputs")[index].get("name"))


def _link_of_frame(inner: Graph, slot: int) -> Link | None:
    assert inner.outer is not None
    graph, frame = inner.outer
    return graph.link_into(frame, inner.places.index(slot)) if slot in inner.places else None


def _link_of_name(graph: Graph, getter: Mapping[str, Any], asked: str) -> tuple[Graph, Link | None]:
    """Return what the name that a getter asks for stands for, and the level where that is."""
    name = constant(getter)
    found = graph.setter(name)
    if found is None:
        log.warning("%s: nothing sets the name %s, which %s asks for", asked, shown(name), graph.name(getter))
        return graph, None
    level, setter = found
    return level, level.link_into(setter, 0)


def _way_through(node: Mapping[str, Any], slot: int, wanted: str) -> int:
    """Return the input that a bypassed node hands on.

    The one beside the output if types allow it, else the first to fit.
    """
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


def _primitive_value(graph: Graph, node: Mapping[str, Any]) -> Value | None:
    """Return a primitive node's value, which takes the place of what is typed in where it leads, muted or not."""
    for (node_id, _), value in graph.overrides.items():
        if node_id == str(node["id"]) and value is not STORED:
            return Value(value)
    values, properties = node.get("widgets_values"), node.get("properties")
    tokens = bool(properties.get(FILLS_IN)) if isinstance(properties, dict) else False
    return Value(values[0], typed=True, tokens=tokens) if isinstance(values, list) and values else None
