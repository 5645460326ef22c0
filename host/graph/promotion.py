"""Values that stand on the frame of a subgraph instead of on the nodes inside: its promoted widgets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .ui_graph import STORED, SUBGRAPH_INPUT, Graph, Link, slots
from .widget_slots import CONTROL_VALUES
from .widgets import stored_values

NESTED_NAME = re.compile(r"\s*(\d+)\s*:\s*(.+)", re.DOTALL)
"""How files of a few months name a widget that a frame inside promotes: "7: steps", for node 7."""

ON_FRAME = "-1"


@dataclass(frozen=True)
class Value:
    """What an input gets that comes from a widget elsewhere: a primitive node or the frame of a subgraph.

    Attributes:
        typed: whether it counts as typed into the node itself, where dynamic prompts are read.
        tokens: whether tokens such as %KSampler.seed% are filled in.
    """

    value: Any
    typed: bool = False
    tokens: bool = False


def promote_all(top: Graph) -> None:
    """Take over what the frames of every level hold, those outside first: they hold what frames inside show."""
    pending = list(top.inner.values())
    done: list[Graph] = []
    while pending:
        inner = pending.pop()
        _promote(inner)
        pending.extend(inner.inner.values())
        done.append(inner)
    # What one frame shows of a subgraph, its other frames show too.
    shown: dict[str, set[tuple[str, str]]] = {}
    for inner in done:
        shown.setdefault(str(inner.definition.get("id")), set()).update(inner.overrides)
    for inner in done:
        for each in shown[str(inner.definition.get("id"))]:
            inner.overrides.setdefault(each, STORED)


def _promote(inner: Graph) -> None:
    assert inner.outer is not None
    graph, frame = inner.outer
    values = frame.get("widgets_values")
    properties = frame.get("properties")
    proxies = properties.get("proxyWidgets") if isinstance(properties, dict) else None
    listed = values if isinstance(values, list) else []
    if isinstance(proxies, list) and proxies:
        _promote_proxies(inner, proxies, listed)
    elif isinstance(values, dict):
        inner.promoted.update({slot: values[name] for name, slot in _names(inner).items() if name in values})
    else:
        _promote_in_order(inner, listed)
    for (node_id, name), value in graph.overrides.items():
        slot = _shown_as(inner, name) if node_id == str(frame["id"]) else None
        if slot is not None and value is not STORED:
            inner.promoted[slot] = value


def _names(inner: Graph) -> dict[str, int]:
    return {str(slot.get("name")): index for index, slot in enumerate(slots(inner.definition, "inputs"))}


def _shown_as(inner: Graph, name: str) -> int | None:
    """Return the input of a frame that shows a widget, by its own name or by the widget's name inside."""
    nested = NESTED_NAME.fullmatch(name)
    if name in _names(inner):
        return _names(inner)[name]
    for (node_id, widget), slot in _widgets_of_frame(inner).items():
        if widget == (nested[2] if nested else name) and (nested is None or node_id == nested[1]):
            return slot
    return None


def _widgets_of_frame(inner: Graph) -> dict[tuple[str, str], int]:
    """Return the inputs of a frame that stand for widgets: from node and widget inside to the frame's slot."""
    return {
        (str(node["id"]), str(slot.get("name"))): link.origin_slot
        for node in inner.nodes.values()
        for slot in slots(node, "inputs")
        if "widget" in slot and (link := inner.links.get(str(slot.get("link")))) and link.origin == SUBGRAPH_INPUT
    }


def _promote_proxies(inner: Graph, proxies: list[Any], values: list[Any]) -> None:
    names, linked = _names(inner), _widgets_of_frame(inner)
    for index, proxy in enumerate(proxies):
        if not isinstance(proxy, list) or len(proxy) < 2:
            continue
        source = (str(proxy[0]), str(proxy[1]))
        value = values[index] if index < len(values) and values[index] is not None else STORED
        slot = names.get(source[1]) if source[0] == ON_FRAME else linked.get(source)
        if slot is None:
            inner.overrides[source] = value
        elif value is not STORED:
            inner.promoted[slot] = value


def _promote_in_order(inner: Graph, values: list[Any]) -> None:
    # By the definition's inputs, whatever the order of the frame's own.
    places = sorted(set(_widgets_of_frame(inner).values()))
    if len(values) > len(places):
        values = [value for value in values if not (isinstance(value, str) and value in CONTROL_VALUES)]
    inner.promoted.update({at: value for at, value in zip(places, values, strict=False) if value is not None})


def frame_value(inner: Graph, slot: int, object_info: Mapping[str, Mapping[str, Any]]) -> Value | None:
    """Return what a frame's own widget holds: the value on the frame, or else the one that is typed in inside.

    It is sent as it is. None where the input is not a widget.
    """
    if slot in inner.promoted:
        return Value(inner.promoted[slot])
    for link in inner.links.values():
        if link.origin == SUBGRAPH_INPUT and link.origin_slot == slot:
            found = _value_inside(inner, link, object_info)
            if found is not None:
                return found
    return None


def _value_inside(inner: Graph, link: Link, object_info: Mapping[str, Mapping[str, Any]]) -> Value | None:
    node = inner.nodes.get(link.target)
    inputs = slots(node, "inputs") if node else []
    if node is None or link.target_slot >= len(inputs):
        return None
    if link.target in inner.inner:
        deeper = inner.inner[link.target]
        place = deeper.places[link.target_slot] if link.target_slot < len(deeper.places) else None
        return None if place is None else frame_value(deeper, place, object_info)
    info = object_info.get(node["type"])
    values = stored_values(node, info) if info else {}
    name = str(inputs[link.target_slot].get("name"))
    return Value(values[name]) if name in values else None
