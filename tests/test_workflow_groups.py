"""Group nodes of older files are laid open; the ids and values are those that ComfyUI's interface gave them."""

from __future__ import annotations

from typing import Any

import pytest
from drawings import BYPASSED, MUTED, drawing, drawn
from graph_nodes import INFO
from tessera.host.errors import GraphError
from tessera.host.graph.workflow import convert

START = ("start", "NUMBER,INT", None)


def inside(kind: str, values: Any = None, inputs: Any = (), outputs: Any = (), **more: Any) -> dict[str, Any]:
    """A node of a group: it has no id."""
    made = drawn(0, kind, values, inputs, outputs, **more)
    del made["id"]
    return made


def group(*nodes: dict[str, Any], links: Any = (), **more: Any) -> dict[str, Any]:
    """A group's drawing; links are (node, output, node, input), by the order of the nodes."""
    return {"nodes": list(nodes), "links": [[*link, 1, "*"] for link in links], **more}


def shown(frame: dict[str, Any], definition: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A number, a group node 5 that takes it, and a node that shows what comes out; as inputs by node id."""
    document = drawing(
        drawn(1, "Number", [4], outputs=["INT", "STRING"]),
        frame,
        drawn(6, "Show", [], [("value", "*", 8)]),
        links=[(7, 1, 0, 5, 0), (8, 5, 0, 6, 0)],
        extra={"groupNodes": {"G": definition, **more}},
    )
    return {node_id: node["inputs"] for node_id, node in convert(document, INFO).items() if node_id != "1"}


SEEDED = inside("Seeded", [1, "fixed", 2], [START], ["INT"])
ADD = inside("Add", None, [("a", "INT", None), ("b", "INT", None)], ["INT"])
TWICE = group(SEEDED, ADD, links=[(0, 0, 1, 0), (0, 0, 1, 1)])


def frame(values: Any, inputs: Any = (("start", "INT", 7),), kind: str = "workflow/G", **more: Any) -> dict[str, Any]:
    """The group node."""
    return drawn(5, kind, values, inputs, ["INT"], **more)


@pytest.mark.parametrize("kind", ["workflow/G", "workflow>G"])
def test_a_group_node_becomes_what_is_inside(kind: str) -> None:
    assert shown(frame([9, "randomize", 30], kind=kind), TWICE) == {
        "5:0": {"seed": 9, "steps": 30, "start": ["1", 0]},
        "5:1": {"a": ["5:0", 0], "b": ["5:0", 0]},
        "6": {"value": ["5:1", 0]},
    }


@pytest.mark.parametrize(("values", "seed", "steps"), [([9, True, 30], 9, 30), ([9], 9, 20), (None, 0, 20)])
def test_values_stand_on_the_group_node(values: Any, seed: int, steps: int) -> None:
    assert shown(frame(values), TWICE)["5:0"] == {"seed": seed, "steps": steps, "start": ["1", 0]}


def test_dynamic_prompts_inside_are_chosen() -> None:
    texts = group(inside("Number", outputs=["INT", "STRING"]))
    made = shown(frame([3, 0.25, "{a|a} stone // not this", False, "blue"], ()), texts)
    assert made["5:0"] == {"value": 3, "weight": 0.25, "text": "a stone ", "on": False, "colour": "blue"}


def test_the_second_of_two_alike_has_its_own_values_and_inputs() -> None:
    two = group(SEEDED, SEEDED | {"title": "Second"}, ADD, links=[(0, 0, 2, 0), (1, 0, 2, 1)])
    inputs = (("start", "INT", None), ("Second start", "INT", 7))
    made = shown(frame([9, "fixed", 30, 8, "fixed", 40], inputs), two)
    assert made["5:0"] == {"seed": 9, "steps": 30}
    assert made["5:1"] == {"seed": 8, "steps": 40, "start": ["1", 0]}
    assert made["5:2"] == {"a": ["5:0", 0], "b": ["5:1", 0]}


def test_inputs_may_be_hidden_and_named_anew() -> None:
    config = {"0": {"input": {"start": {"name": "from"}, "steps": {"name": "how many"}}, "output": {}}}
    assert shown(frame([9, "fixed", 30], (("from", "INT", 7),)), TWICE | {"config": config})["5:0"]["start"] == ["1", 0]
    config = {"0": {"input": {"start": {"visible": False}}}, "1": {"input": {"a": {}}}}
    made = shown(frame([9, "fixed", 30], ()), TWICE | {"config": config})
    assert made["5:0"] == {"seed": 9, "steps": 30}


def test_an_output_that_is_used_inside_is_shown_where_it_is_used_outside_too() -> None:
    document = shown(frame([9, "fixed", 30]), TWICE | {"external": [[0, 0, "INT"]]})
    assert document["6"] == {"value": ["5:0", 0]}
    config = {"0": {"output": {"0": {"visible": False}}}}
    document = shown(frame([9, "fixed", 30]), TWICE | {"external": [[0, 0, "INT"]], "config": config})
    assert document["6"] == {"value": ["5:1", 0]}


def test_a_widget_that_was_made_an_input_has_no_value_on_the_group_node() -> None:
    steps = inside("Seeded", [1, "fixed", 2], [START, ("steps", "INT", None, "widget")], ["INT"])
    made = shown(frame([9, "fixed"], (("start", "INT", None), ("steps", "INT", 7))), group(steps))
    assert made["5:0"] == {"seed": 9, "steps": ["1", 0]}


def test_primitives_inside_hand_over_the_value_of_the_group_node() -> None:
    primitive = inside("PrimitiveNode", [3, "fixed"], (), ["INT"], title="Steps")
    steps = inside("Seeded", [1, "fixed", 2], [START, ("steps", "INT", None, "widget")], ["INT"])
    made = shown(frame([17, "fixed", 9, "fixed"]), group(primitive, steps, links=[(0, 0, 1, 1)]))
    assert made["5:1"] == {"seed": 9, "steps": 17, "start": ["1", 0]}


def test_reroutes_inside_are_seen_through() -> None:
    reroute = inside("Reroute", None, [("", "*", None)], ["INT"])
    made = shown(frame([9, "fixed", 30]), group(SEEDED, reroute, ADD, links=[(0, 0, 1, 0), (1, 0, 2, 0), (1, 0, 2, 1)]))
    assert made["5:2"] == {"a": ["5:0", 0], "b": ["5:0", 0]}


def test_groups_in_groups() -> None:
    inner = inside("workflow/Twice", {}, [("start", "INT", None)], ["INT"])
    made = shown(frame([9, "fixed", 30]), group(inner), Twice=TWICE)
    assert made["5:0:0"] == {"seed": 9, "steps": 30, "start": ["1", 0]}
    assert made["6"] == {"value": ["5:0:1", 0]}


def test_muted_and_bypassed_group_nodes() -> None:
    assert shown(frame([9, "fixed", 30], mode=MUTED), TWICE) == {"6": {}}
    assert shown(frame([9, "fixed", 30], mode=BYPASSED), TWICE) == {"6": {"value": ["1", 0]}}
    muted = group(SEEDED, ADD | {"mode": MUTED}, links=[(0, 0, 1, 0), (0, 0, 1, 1)])
    assert set(shown(frame([9, "fixed", 30]), muted)) == {"5:0", "6"}


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (group(inside("workflow/G")), "contains itself"),
        (group(), "expected nodes with a type inside"),
        (group({"title": "no type"}), "expected nodes with a type inside"),
    ],
)
def test_a_broken_group_is_refused_in_one_line(definition: dict[str, Any], said: str) -> None:
    with pytest.raises(GraphError, match=said) as refused:
        shown(frame([9, "fixed", 30]), definition)
    assert len(refused.value.lines) == 1


def test_groups_that_explode_are_refused() -> None:
    more = {f"G{level}": group(*[inside(f"workflow/G{level + 1}")] * 10) for level in range(6)}
    with pytest.raises(GraphError, match="shows more than 5000 inputs"):
        shown(frame([], ()), group(*[inside("workflow/G0")] * 10), **more, G6=TWICE)


def test_many_group_nodes_are_refused() -> None:
    many = group(*[inside("workflow/Quiet")] * 600)
    with pytest.raises(GraphError, match="more than 1000 group nodes"):
        shown(frame([], ()), group(*[inside("workflow/Many")] * 2), Many=many, Quiet=group(inside("Note")))
