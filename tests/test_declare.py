"""Nodes that are declared in a few lines."""

from __future__ import annotations

import inspect

import pytest
from tessera.host.schema import io
from tessera.host.schema.declare import Nodes, choice, decimal, integer
from tessera.host.schema.node import Hidden, bound


def test_a_function_becomes_a_node_and_stays_a_function() -> None:
    nodes = Nodes("here")

    @nodes("Twice", "Double", [integer("x", 1, 0, 9), choice("how", ["add"])], [io.Int, ("again", io.Int)])
    def twice(x: int, how: str) -> tuple[int, int]:
        """Double a number."""
        return 2 * x, 2 * x

    assert twice(3, "add") == (6, 6)
    (node,) = nodes
    info = node.GET_NODE_INFO_V1()
    assert (info["name"], info["display_name"], info["category"]) == ("Twice", "Double", "here")
    assert info["description"] == "Double a number."
    assert list(info["input"]["required"]) == ["x", "how"]
    assert (info["output"], info["output_name"]) == (["INT", "INT"], ["INT", "again"])
    assert node.execute(x=4, how="add").args == (8, 8)


def test_a_node_asks_for_what_is_hidden() -> None:
    nodes = Nodes("here")

    @nodes("Who", "Who", [decimal("multiplier", 1.0, 0, 2)], [io.String], hidden=[io.Hidden.unique_id])
    def who(multiplier: float, hidden: io.HiddenHolder) -> str:
        """Say who asks."""
        return f"{hidden.unique_id}"

    assert bound(nodes[0], "execute", {Hidden.unique_id: "7"})(multiplier=1.0).args == ("7",)
    assert nodes[0].GET_NODE_INFO_V1()["input"]["required"]["multiplier"][1]["tooltip"]


@pytest.mark.parametrize("answer", [True, "no such file"])
def test_a_check_before_the_run_keeps_its_signature(answer: bool | str) -> None:
    nodes = Nodes("here")

    def check(name: str) -> bool | str:
        return answer

    def shout(name: str) -> str:
        return name.upper()

    @nodes("Check", "Check", [io.String.Input("name")], [io.String], validate=check, fingerprint=shout)
    def use(name: str) -> str:
        """Give the name back."""
        return name

    assert inspect.getfullargspec(nodes[0].validate_inputs).args == ["cls", "name"]
    assert nodes[0].validate_inputs(name="x") == answer
    assert nodes[0].fingerprint_inputs(name="x") == "X"
