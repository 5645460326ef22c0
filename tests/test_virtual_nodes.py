"""Nodes that only an interface knows: links by name, other reroutes, switches."""

from __future__ import annotations

from typing import Any

import pytest
from drawings import BYPASSED, MUTED, SUBGRAPH, drawing, drawn, inputs_of, subgraph
from graph_nodes import INFO
from tessera.host.errors import GraphError
from tessera.host.graph.workflow import convert

SET, GET = ("SetNode", "GetNode"), ("easy setNode", "easy getNode")


def named_link(kinds: tuple[str, str] = SET, asked: str = "moss", **getter: Any) -> dict[str, Any]:
    """A number that gets a name, and a node that asks for it."""
    return drawing(
        drawn(1, "Number", [4], (), ["INT"]),
        drawn(2, kinds[0], ["moss"], [("INT", "INT", 10)], ["*"]),
        drawn(3, kinds[1], [asked], (), ["INT"], **getter),
        drawn(4, "Seeded", [7, "fixed", 30], [("steps", "INT", 11, "widget")]),
        links=[(10, 1, 0, 2, 0), (11, 3, 0, 4, 0)],
    )


@pytest.mark.parametrize("kinds", [SET, GET])
def test_a_name_stands_for_a_line(kinds: tuple[str, str]) -> None:
    assert set(convert(named_link(kinds), INFO)) == {"1", "4"}
    assert inputs_of(named_link(kinds), "4")["steps"] == ["1", 0]


def test_a_setter_hands_on_to_its_own_output() -> None:
    document = named_link()
    document["links"][1][1] = 2
    assert inputs_of(document, "4")["steps"] == ["1", 0]


@pytest.mark.parametrize("mode", [MUTED, BYPASSED])
def test_a_getter_that_is_off_gives_nothing(mode: int) -> None:
    assert inputs_of(named_link(mode=mode), "4")["steps"] == 30


def test_a_name_that_nothing_has_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert inputs_of(named_link(asked="fern"), "4")["steps"] == 30
    assert "node 4 Seeded, input steps" in caplog.text
    assert '"fern"' in caplog.text


def test_names_are_looked_up_around_a_subgraph_from_the_inside_out() -> None:
    getter = drawn(11, "GetNode", ["moss"], (), ["INT"])
    add = drawn(12, "Add", [], [("a", "INT", 1), ("b", "INT", 1)], ["INT"])
    own = [drawn(13, "Number", [5], (), ["INT"]), drawn(14, "SetNode", ["moss"], [("INT", "INT", 3)], ["*"])]
    links = [(1, 11, 0, 12, 0), (2, 12, 0, -20, 0)]
    outer = named_link()
    outer["nodes"].append(drawn(5, SUBGRAPH, None, (), ["INT"]))
    around = outer | {"definitions": {"subgraphs": [subgraph(getter, add, links=links, outputs=["INT"])]}}
    assert inputs_of(around, "5:12") == {"a": ["1", 0], "b": ["1", 0]}
    within = subgraph(getter, add, *own, links=[*links, (3, 13, 0, 14, 0)], outputs=["INT"])
    assert inputs_of(outer | {"definitions": {"subgraphs": [within]}}, "5:12") == {"a": ["5:13", 0], "b": ["5:13", 0]}


def test_names_that_lead_to_themselves_are_refused() -> None:
    document = named_link()
    document["links"] = [[10, 3, 0, 2, 0, "*"], [11, 3, 0, 4, 0, "*"]]
    with pytest.raises(GraphError, match="circle"):
        convert(document, INFO)


def test_another_reroute_and_a_switch_are_not_sent() -> None:
    document = drawing(
        drawn(1, "Number", [4], (), ["INT"]),
        drawn(2, "Reroute (rgthree)", None, [("", "*", 10)], ["*"]),
        drawn(3, "Fast Muter (rgthree)", None, [("Add", "*", 12)], ["*"]),
        drawn(4, "Add", [], [("a", "INT", 11), ("b", "INT", 11)], ["INT"]),
        links=[(10, 1, 0, 2, 0), (11, 2, 0, 4, 0), (12, 4, 0, 3, 0)],
    )
    assert set(convert(document, INFO)) == {"1", "4"}
    assert inputs_of(document, "4") == {"a": ["1", 0], "b": ["1", 0]}
