"""Write the subgraph blueprints that ComfyUI offers in its node library.

`tools/blueprints.json` says what they are: nodes as in an API-format graph, and which of their inputs the frame shows.
`python -m tessera.tools.blueprints` writes `subgraphs/<name>.json` in the UI format.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..app.registry import object_info
from ..host.schema.object_info import InputInfo, inputs_of
from .layout import dump

FOLDER = Path(__file__).parents[1] / "subgraphs"
SPECS = Path(__file__).with_name("blueprints.json")
FRAME_IN, FRAME_OUT = -10, -20
FRAME = 1
WIDTH, COLUMN, GAP = 280, 340, 60
Json = dict[str, Any]
Links = Sequence[tuple[int, tuple[Any, int, Any, str]]]
"""The number of each link, with what `_links` says of it."""


def blueprint(name: str, spec: Mapping[str, Any], info: Mapping[str, Json]) -> Json:
    """Return the workflow of a blueprint: one frame, and the subgraph that it stands for."""
    subgraph = _subgraph(name, spec, info)
    promoted = [each for each in subgraph["inputs"] if each.pop("widget")]
    first = {label: targets[0] for label, targets in spec["inputs"].items()}
    frame = {
        "id": FRAME,
        "type": subgraph["id"],
        "pos": [0, 0],
        "size": [320, 120 + 26 * len(subgraph["inputs"])],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [
            {"name": each["name"], "type": each["type"], "link": None}
            | ({"widget": {"name": each["name"]}} if each in promoted else {})
            for each in subgraph["inputs"]
        ],
        "outputs": [{"name": each["name"], "type": each["type"], "links": None} for each in subgraph["outputs"]],
        "properties": {"proxyWidgets": [["-1", each["name"]] for each in promoted], "cnr_id": "tessera-nodes"},
        "widgets_values": [_value(spec, *first[each["name"]]) for each in promoted],
        "title": name,
    }
    return {
        "id": _uuid(name, "workflow"),
        "revision": 0,
        "last_node_id": max(FRAME, *map(int, spec["nodes"])),
        "last_link_id": len(subgraph["links"]),
        "nodes": [frame],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [subgraph]},
        "config": {},
        "extra": {"BlueprintDescription": spec["description"], "BlueprintSearchAliases": spec["aliases"]},
        "version": 0.4,
    }


def _uuid(name: str, part: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"tessera/{name}/{part}"))


def _value(spec: Mapping[str, Any], node: str, name: str) -> Any:
    return spec["nodes"][node]["inputs"][name]


def _links(spec: Mapping[str, Any]) -> list[tuple[Any, int, Any, str]]:
    """List the links: origin and its slot, target and the name of its input; an output's name for the frame."""
    found: list[tuple[Any, int, Any, str]] = []
    for slot, targets in enumerate(spec["inputs"].values()):
        found += [(FRAME_IN, slot, int(node), name) for node, name in targets]
    for number, node in spec["nodes"].items():
        linked = ((name, value) for name, value in node["inputs"].items() if isinstance(value, list))
        found += [(int(value[0]), value[1], int(number), name) for name, value in linked]
    return found + [(int(node), slot, FRAME_OUT, name) for name, (node, slot) in spec["outputs"].items()]


def _subgraph(name: str, spec: Mapping[str, Any], info: Mapping[str, Json]) -> Json:
    links = list(enumerate(_links(spec), 1))
    kinds = {int(number): info[node["class_type"]] for number, node in spec["nodes"].items()}
    places = _places(spec)
    right = max(x for x, _ in places.values()) + COLUMN
    nodes = [_node(number, spec["nodes"][str(number)], kinds[number], links, places) for number in kinds]
    return {
        "id": _uuid(name, "subgraph"),
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": max(kinds), "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": FRAME_IN, "bounding": [-220, 0, 140, 40 + 20 * len(spec["inputs"])]},
        "outputNode": {"id": FRAME_OUT, "bounding": [right, 0, 140, 40 + 20 * len(spec["outputs"])]},
        "inputs": _frame_inputs(name, spec, kinds, links),
        "outputs": _frame_outputs(name, spec, kinds, links),
        "widgets": [],
        "nodes": nodes,
        "groups": [],
        "links": _link_objects(spec, kinds, links, nodes),
        "extra": {},
        "description": spec["description"],
        "category": "Tessera",
    }


def _frame_inputs(name: str, spec: Mapping[str, Any], kinds: Mapping[int, Json], links: Links) -> list[Json]:
    shown = []
    for slot, (label, targets) in enumerate(spec["inputs"].items()):
        node, wanted = targets[0]
        known = inputs_of(kinds[int(node)])[wanted]
        shown.append(
            {
                "id": _uuid(name, f"input {label}"),
                "name": label,
                "type": known.type,
                "linkIds": [n for n, link in links if link[:2] == (FRAME_IN, slot)],
                "widget": known.is_widget,
            }
        )
    return shown


def _frame_outputs(name: str, spec: Mapping[str, Any], kinds: Mapping[int, Json], links: Links) -> list[Json]:
    return [
        {
            "id": _uuid(name, f"output {label}"),
            "name": label,
            "type": kinds[int(node)]["output"][slot],
            "linkIds": [n for n, link in links if link[2:] == (FRAME_OUT, label)],
        }
        for label, (node, slot) in spec["outputs"].items()
    ]


def _link_objects(
    spec: Mapping[str, Any], kinds: Mapping[int, Json], links: Links, nodes: Sequence[Json]
) -> list[Json]:
    names = {node["id"]: [each["name"] for each in node["inputs"]] for node in nodes} | {FRAME_OUT: [*spec["outputs"]]}
    return [
        {
            "id": number,
            "origin_id": origin,
            "origin_slot": slot,
            "target_id": target,
            "target_slot": names[target].index(wanted),
            "type": inputs_of(kinds[target])[wanted].type if origin == FRAME_IN else kinds[origin]["output"][slot],
        }
        for number, (origin, slot, target, wanted) in links
    ]


def _node(number: int, node: Json, info: Json, links: Links, places: Mapping[int, tuple[int, int]]) -> Json:
    inputs = inputs_of(info)
    to = {link[3]: n for n, link in links if link[2] == number}
    shown = [each for each in inputs.values() if not each.is_widget or each.name in to]
    return {
        "id": number,
        "type": node["class_type"],
        "pos": list(places[number]),
        "size": [WIDTH, _height(inputs)],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [
            {"name": each.name, "type": each.type, "link": to.get(each.name)}
            | ({"widget": {"name": each.name}} if each.is_widget else {})
            for each in shown
        ],
        "outputs": [
            {"name": label, "type": kind, "links": [n for n, link in links if link[:2] == (number, slot)]}
            for slot, (label, kind) in enumerate(zip(info["output_name"], info["output"], strict=True))
        ],
        "properties": {"Node name for S&R": node["class_type"]},
        "widgets_values": _widgets(node["inputs"], inputs),
    }


def _widgets(given: Mapping[str, Any], inputs: Mapping[str, InputInfo]) -> list[Any]:
    values: list[Any] = []
    for each in inputs.values():
        if each.is_widget:
            values.append(given.get(each.name, each.options.get("default")))
            values += ["fixed"] if each.options.get("control_after_generate") else []
    return values


def _height(inputs: Mapping[str, InputInfo]) -> int:
    texts = sum(bool(each.options.get("multiline")) for each in inputs.values())
    return 80 + 25 * len(inputs) + 100 * texts


def _places(spec: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
    """Return a corner for each node: columns by the longest way from the frame's inputs."""
    columns: dict[int, int] = {}

    def column(number: str) -> int:
        above = [value[0] for value in spec["nodes"][number]["inputs"].values() if isinstance(value, list)]
        return 1 + max((column(each) for each in above), default=-1)

    below: dict[int, int] = {}
    places: dict[int, tuple[int, int]] = {}
    for number in spec["nodes"]:
        columns[int(number)] = at = column(number)
        places[int(number)] = (at * COLUMN, below.get(at, 0))
        below[at] = below.get(at, 0) + 480 + GAP
    return places


def write() -> None:
    """Write every blueprint."""
    FOLDER.mkdir(exist_ok=True)
    for name, drawing in blueprints().items():
        (FOLDER / f"{name}.json").write_text(dump(drawing), encoding="utf-8")


def blueprints() -> dict[str, Json]:
    """Return the blueprints by name."""
    info = object_info()
    return {name: blueprint(name, spec, info) for name, spec in json.loads(SPECS.read_text("utf-8")).items()}


if __name__ == "__main__":
    write()
