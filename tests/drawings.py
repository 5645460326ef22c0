"""UI-format files to convert, made of the nodes in graph_nodes."""

from __future__ import annotations

from typing import Any

from graph_nodes import INFO, node
from tessera.host.graph.workflow import convert

MUTED, BYPASSED = 2, 4
SUBGRAPH = "11111111-2222-3333-4444-555555555555"


def drawn(
    node_id: int, kind: str, values: Any = None, inputs: Any = (), outputs: Any = (), **more: Any
) -> dict[str, Any]:
    """A UI-format node. Inputs are (name, type, link), with a fourth item for those that are widgets too."""
    slots = [{"name": name, "type": type_, "link": link} for name, type_, link, *_ in inputs]
    for slot, (
        name,
        *_,
    ) in zip(slots, inputs, strict=True):
        if len(inputs[slots.index(slot)]) > 3:
            slot["widget"] = {"name": name}
    ends = [{"name": type_, "type": type_, "links": [0]} for type_ in outputs]
    return {"id": node_id, "type": kind, "mode": 0, "inputs": slots, "outputs": ends, "widgets_values": values, **more}


def drawing(*nodes: dict[str, Any], links: Any = (), **more: Any) -> dict[str, Any]:
    """A UI-format file; links are (id, origin, slot, target, slot)."""
    return {"version": 0.4, "nodes": list(nodes), "links": [[*link, "*"] for link in links], **more}


def inputs_of(document: dict[str, Any], node_id: str) -> dict[str, Any]:
    """The inputs of one node after conversion."""
    return convert(document, INFO)[node_id]["inputs"]


SUM = drawing(
    drawn(1, "Number", [4, 0.25, "moss", False, "blue"], outputs=["INT", "STRING"]),
    drawn(2, "Add", [], [("a", "INT", 10), ("b", "INT", 11)], ["INT"], title="The sum"),
    drawn(3, "Show", [], [("value", "*", 12)]),
    drawn(4, "Note", ["read me"]),
    drawn(5, "MarkdownNote", ["# read me"]),
    links=[(10, 1, 0, 2, 0), (11, 1, 0, 2, 1), (12, 2, 0, 3, 0)],
)


def subgraph(
    *nodes: dict[str, Any], links: Any, inputs: Any = (), outputs: Any = (), id_: str = SUBGRAPH
) -> dict[str, Any]:
    """A definition; in its links -10 is the frame's inputs and -20 its outputs."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    slots = {
        "inputs": [{"name": name, "type": type_} for name, type_ in inputs],
        "outputs": [{"name": type_, "type": type_} for type_ in outputs],
    }
    return {"id": id_, "nodes": list(nodes), "links": [dict(zip(keys, link, strict=True)) for link in links], **slots}


ADDER = subgraph(
    drawn(11, "Seeded", [7, "fixed", 30], [("start", "NUMBER,INT", 1), ("steps", "INT", 2, "widget")], ["INT"]),
    drawn(12, "Add", [], [("a", "INT", 3), ("b", "INT", 4)], ["INT"]),
    links=[(1, -10, 0, 11, 0), (2, -10, 1, 11, 1), (3, 11, 0, 12, 0), (4, 11, 0, 12, 1), (5, 12, 0, -20, 0)],
    inputs=[("start", "INT"), ("steps", "INT")],
    outputs=["INT"],
)


def framed(
    values: Any = None, steps_link: int | None = None, definitions: Any = (ADDER,), **more: Any
) -> dict[str, Any]:
    """A number, a frame around the adder, and a node that shows the sum."""
    return drawing(
        drawn(1, "Number", [4], outputs=["INT", "STRING"]),
        drawn(2, SUBGRAPH, values, [("start", "INT", 10), ("steps", "INT", steps_link, "widget")], ["INT"], **more),
        drawn(3, "Show", [], [("value", "*", 11)]),
        links=[(10, 1, 0, 2, 0), (11, 2, 0, 3, 0), (12, 1, 0, 2, 1)],
        definitions={"subgraphs": list(definitions)},
    )


NESTED = "99999999-2222-3333-4444-555555555555"
OUTER = subgraph(
    drawn(7, NESTED, [66], [("start", "INT", 1), ("steps", "INT", 2, "widget")], ["INT"]),
    links=[(1, -10, 0, 7, 0), (2, -10, 1, 7, 1), (3, 7, 0, -20, 0)],
    inputs=[("start", "INT"), ("steps", "INT")],
    outputs=["INT"],
)


API = {"1": node("Number", value=4), "2": node("Show", value=["1", 0])}
