"""Graphs drawn as ComfyUI's interface saves them, laid out from left to right."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ....host.graph.widgets import has_control
from ....host.schema.object_info import inputs_of

Output = tuple[str, int]

WIDTH, GAP, ROW, TEXT_BOX = 330, (70, 50), 26, 120
NOTE_WIDTH = 900


@dataclass(frozen=True)
class Node:
    """A node under the name of its role; inputs are values, or outputs of other nodes."""

    role: str
    class_type: str
    inputs: Mapping[str, Any]

    def __getitem__(self, slot: int) -> Output:
        return self.role, slot


@dataclass
class LaidOutGraph:
    """A graph that grows. `nodes` holds them by role, each after those it needs."""

    info: Mapping[str, Mapping[str, Any]]
    nodes: dict[str, Node] = field(default_factory=dict)

    def add(self, role: str, class_type: str, /, **inputs: Any) -> Node:
        """Draw a node; inputs that are left out have their defaults."""
        self.nodes[role] = Node(role, class_type, inputs)
        return self.nodes[role]

    def number(self, role: str) -> int:
        """The id of a node in the file."""
        return 1 + list(self.nodes).index(role)

    def acting(self) -> dict[str, Node]:
        """Return the nodes that the saved or shown images depend on, by role."""
        ends = [role for role, node in self.nodes.items() if self.info[node.class_type]["output_node"]]
        found: dict[str, Node] = {}
        while ends:
            role = ends.pop()
            if role not in found:
                found[role] = self.nodes[role]
                ends += [value[0] for value in found[role].inputs.values() if isinstance(value, tuple)]
        return found

    def document(self, note: str) -> dict[str, Any]:
        """The UI-format file, with `note` below the graph."""
        links = self._links()
        places = self._places()
        drawn = [self._node(node, links, places[node.role]) for node in self.nodes.values()]
        bottom = max(node["pos"][1] + node["size"][1] for node in drawn)
        return {
            # Told by the graph, so that one request always makes one file.
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, repr(self.nodes))),
            "revision": 0,
            "last_node_id": len(drawn) + 1,
            "last_link_id": len(links),
            "nodes": [*drawn, _note(len(drawn) + 1, note, bottom + GAP[1])],
            "links": [[number, *link] for number, link in enumerate(links, 1)],
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def _sockets(self, node: Node) -> dict[str, Any]:
        """The inputs that are drawn as sockets, by name: those of links, and widgets that something is linked to."""
        inputs = inputs_of(self.info[node.class_type])
        shown = [
            name for name, each in inputs.items() if not each.is_widget or isinstance(node.inputs.get(name), tuple)
        ]
        return {name: node.inputs.get(name) for name in shown}

    def _links(self) -> list[tuple[int, int, int, int, str]]:
        return [
            (self.number(value[0]), value[1], self.number(node.role), slot, self._type(value))
            for node in self.nodes.values()
            for slot, value in enumerate(self._sockets(node).values())
            if value is not None
        ]

    def _type(self, output: Output) -> str:
        return self.info[self.nodes[output[0]].class_type]["output"][output[1]]

    def _node(self, node: Node, links: list[tuple[int, int, int, int, str]], place: tuple[int, int]) -> dict[str, Any]:
        number, info = self.number(node.role), self.info[node.class_type]
        ends = {(link[2], link[3]): index for index, link in enumerate(links, 1)}
        starts = [
            [index for index, link in enumerate(links, 1) if link[:2] == (number, slot)] or None
            for slot in range(len(info["output"]))
        ]
        specs = inputs_of(info)
        return {
            "id": number,
            "type": node.class_type,
            "pos": list(place),
            "size": [WIDTH, self._height(node)],
            "flags": {},
            "order": number - 1,
            "mode": 0,
            "inputs": [
                {"name": name, "type": specs[name].type, "link": ends.get((number, slot))}
                | ({"widget": {"name": name}} if specs[name].is_widget else {})
                for slot, name in enumerate(self._sockets(node))
            ],
            "outputs": [
                {"name": name, "type": kind, "links": out}
                for name, kind, out in zip(info["output_name"], info["output"], starts, strict=True)
            ],
            "title": node.role[0].upper() + node.role[1:],
            "properties": {
                "cnr_id": "tessera-nodes" if node.class_type.startswith("Tessera") else "comfy-core",
                "Node name for S&R": node.class_type,
            },
            "widgets_values": self._widgets(node),
        }

    def _widgets(self, node: Node) -> list[Any]:
        """The values as the interface saves them: a word behind a seed, an upload's label behind the required."""
        values: list[Any] = []
        widgets = {name: each for name, each in inputs_of(self.info[node.class_type]).items() if each.is_widget}
        last_required = [name for name, each in widgets.items() if each.required][-1:]
        uploads = any(each.options.get("image_upload") for each in widgets.values())
        for name, each in widgets.items():
            given = node.inputs.get(name)
            options = each.options.get("options") or [None]
            values.append(
                each.options.get("default", options[0]) if given is None or isinstance(given, tuple) else given
            )
            values.extend(["fixed"] if has_control(each) else [])
            values.extend(["image"] if uploads and [name] == last_required else [])
        return values

    def _height(self, node: Node) -> int:
        specs = inputs_of(self.info[node.class_type]).values()
        texts = sum(bool(each.options.get("multiline")) for each in specs)
        rows = max(len(self._sockets(node)), len(self.info[node.class_type]["output"])) + len(self._widgets(node))
        return ROW * (2 + rows) + TEXT_BOX * texts

    def _places(self) -> dict[str, tuple[int, int]]:
        """Where nodes lie: each right of all it needs, those of one column below each other."""
        columns: dict[str, int] = {}
        bottoms: dict[int, int] = {}
        places = {}
        for role, node in self.nodes.items():
            before = [columns[value[0]] for value in node.inputs.values() if isinstance(value, tuple)]
            column = columns[role] = 1 + max(before, default=-1)
            top = bottoms.get(column, 0)
            places[role] = (column * (WIDTH + GAP[0]), top)
            bottoms[column] = top + self._height(node) + GAP[1]
        return places


def _note(number: int, text: str, top: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "Note",
        "pos": [0, top],
        "size": [NOTE_WIDTH, ROW * (2 + text.count("\n"))],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "What became of the request",
        "properties": {},
        "widgets_values": [text],
    }
