"""Tokens in the file names of a UI-format workflow: `%date:yyyy-MM-dd%` and `%KSampler.seed%`, as ComfyUI's interface
fills them in before it sends a graph. The rest (%year%, %width%, ...) is for whoever saves."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .promotion import Value, frame_value
from .sources import source
from .ui_graph import Graph, slots
from .widgets import stored_values

TOKEN = re.compile(r"%([^%]+)%")
FORBIDDEN = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')
ALIAS = "Node name for S&R"
NO_ALIAS = {"SaveImage", "SaveLatent", "SaveAnimatedPNG", "SaveAnimatedWEBP"}
"""The interface gives every node an alias, its class, but for those that save."""

ObjectInfos = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Named:
    """A node as tokens name it: by the alias among its properties before its title."""

    alias: str
    title: str
    graph: Graph
    node: Mapping[str, Any]

    def value(self, name: str, object_info: ObjectInfos) -> Any:
        """Return what is typed into a widget of the node, or shown on the frame of a subgraph.

        KeyError where it has none.
        """
        inner = self.graph.inner.get(str(self.node["id"]))
        if inner is None:
            filled = self._filled(name)
            return filled.value if filled else stored_values(self.node, object_info[self.node["type"]])[name]
        for slot, each in enumerate(inner.definition.get("inputs") or []):
            if isinstance(each, dict) and each.get("name") == name:
                found = frame_value(inner, slot, object_info)
                if found is not None:
                    return found.value
        raise KeyError(name)

    def _filled(self, name: str) -> Value | None:
        """Return what a primitive node types into a widget of the node."""
        for index, slot in enumerate(slots(self.node, "inputs")):
            if slot.get("name") == name and slot.get("link") is not None:
                found = source(self.graph, self.node, index)
                return found if isinstance(found, Value) else None
        return None


class Tokens:
    """Fills in the tokens of texts; what they do not name stays as it is."""

    def __init__(self, top: Graph, object_info: ObjectInfos, now: time.struct_time) -> None:
        self.top, self.object_info, self.now = top, object_info, now

    def fill(self, text: str) -> str:
        """Return the text with what its tokens name."""
        return TOKEN.sub(self._filled, text)

    def fill_prefixes(self, prompt: Mapping[str, Mapping[str, Any]]) -> None:
        """Fill in every `filename_prefix` of a graph, in place."""
        for node in prompt.values():
            prefix = node["inputs"].get("filename_prefix")
            if isinstance(prefix, str):
                node["inputs"]["filename_prefix"] = self.fill(prefix)

    @cached_property
    def _nodes(self) -> list[Named]:
        """All nodes, what is inside a frame before the frame: the first that has a name is meant."""
        found: list[Named] = []
        pending: list[tuple[Graph, Mapping[str, Any], bool]] = _levels_nodes(self.top)
        while pending:
            graph, node, seen = pending.pop()
            inner = graph.inner.get(str(node["id"]))
            if inner is not None and not seen:
                pending += [(graph, node, True), *_levels_nodes(inner)]
            else:
                found.append(_name(graph, node, inner, self.object_info))
        return found

    def _filled(self, token: re.Match[str]) -> str:
        if token[1].startswith("date:"):
            return _date(token[1].removeprefix("date:"), self.now)
        name, dot, widget = token[1].partition(".")
        if not dot:
            return token[0]
        by_alias = [each for each in self._nodes if each.alias == name]
        meant = by_alias or [each for each in self._nodes if each.title == name]
        try:
            return FORBIDDEN.sub("_", _written(meant[0].value(widget, self.object_info)))
        except LookupError:
            return token[0]


def _levels_nodes(graph: Graph) -> list[tuple[Graph, Mapping[str, Any], bool]]:
    return [(graph, node, False) for node in reversed(graph.nodes.values())]


def _name(graph: Graph, node: Mapping[str, Any], inner: Graph | None, object_info: ObjectInfos) -> Named:
    properties = node.get("properties")
    aliases = properties if isinstance(properties, dict) else {}
    shown = inner.definition.get("name") if inner else object_info.get(node["type"], {}).get("display_name")
    title = str(node.get("title") or shown or node["type"])
    given = None if inner or node["type"] in NO_ALIAS else node["type"]
    return Named(str(aliases.get(ALIAS, given)), title, graph, node)


def _written(value: Any) -> str:
    """Return a value as JavaScript writes it."""
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)


def _date(form: str, now: time.struct_time) -> str:
    parts = {"d": now.tm_mday, "M": now.tm_mon, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec}
    years = {"yyyy": str(now.tm_year), "yy": f"{now.tm_year % 100:02}"}
    return re.sub(
        r"yyyy|yy|dd?|MM?|hh?|mm?|ss?",
        lambda found: years.get(found[0]) or str(parts[found[0][0]]).zfill(len(found[0])),
        form,
    )
