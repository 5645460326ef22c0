"""Everything that is wrong with a graph is said at once, one line each, before anything runs."""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

import pytest
from graph_nodes import CLASSES, INFO, node
from hypothesis import given, settings
from hypothesis import strategies as st
from tessera.host.errors import GraphError
from tessera.host.graph.faults import Kind
from tessera.host.graph.validation import examine, needed, validate
from tessera.host.graph.workflow import Prompt, from_document, to_prompt
from tessera.host.progress import interrupt_current_processing, processing_interrupted
from tessera.host.schema import io
from tessera.host.schema.object_info import ObjectInfo


def complaints(prompt: Prompt) -> list[str]:
    """The lines that a graph is refused with; it must be refused."""
    with pytest.raises(GraphError) as refused:
        validate(prompt, INFO)
    return refused.value.lines


def shown(*nodes: dict[str, Any]) -> Prompt:
    """A graph of nodes "1", "2", ... whose last one is shown by node "0"."""
    graph = {str(index): each for index, each in enumerate(nodes, 1)}
    return graph | {"0": node("Show", value=[str(len(nodes)), 0])}


def test_a_good_graph_is_accepted() -> None:
    prompt = shown(node("Number", value=1), node("Number", value=2), node("Add", a=["1", 0], b=["2", 0]))
    checked, outputs = validate(prompt, INFO)
    assert outputs == ["0"]
    assert checked == prompt


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        (shown(node("Numbr", value=1)), ["node 1 Numbr", "unknown node type", 'did you mean "Number"?']),
        (shown(node("Number")), ["node 1 Number, input value", "missing", "a whole number from 0 to 10"]),
        (shown(node("Add", a=1)), ["input b", "missing", "a link to INT", "connect it"]),
        (shown(node("Number", value=11)), ["input value", "found 11", "from 0 to 10", "for example to 1"]),
        (shown(node("Number", value=-1)), ["found -1", "from 0 to 10"]),
        (shown(node("Number", value="many")), ['found "many"', "a whole number"]),
        (shown(node("Number", value=None)), ["found null", "a whole number"]),
        (shown(node("Number", value=1, weight=math.nan)), ["input weight", "found NaN", "from 0.0 to 1.0"]),
        (shown(node("Number", value=math.inf)), ["found Infinity", "a whole number"]),
        (shown(node("Number", value=1, colour="gren")), ['found "gren"', '"red", "green", "blue"', 'mean "green"?']),
        (shown(node("Number", value={"a": 1})), ['found {"a": 1}']),
        (shown(node("Number", value=["9", 0])), ['linked to node "9", which is not there']),
        (shown(node("Number", value=1), node("Number", value=["1", 2])), ["linked to output 2 of node 1", "0 to 1"]),
        (shown(node("Number", value=1), node("Number", value=["1", -1])), ["linked to output -1"]),
        (shown(node("Number", value=["0", 0])), ["linked to output 0 of node 0 Show; it has none"]),
        (shown(node("Paint"), node("Add", a=["1", 0], b=3)), ["which gives IMAGE; expected INT"]),
        (shown(node("Number", value=[1, 0])), ["found [1, 0]", 'expected a link ["node id", output number]']),
        (shown(node("Number", value=["1", 0, 0])), ['found ["1", 0, 0]']),
        (shown(node("Number", value=["1", True])), ['found ["1", true]']),
        (shown(node("Even", value=3)), ["node 1 Even, input value: 3 is odd; set an even number"]),
        ({"1": node("Number", value=1)}, ["the graph has no outputs"]),
        ({}, ["the graph has no outputs"]),
        ({"1": node("Save", images="a.png")}, ['found "a.png"; expected a link to IMAGE; connect it']),
    ],
)
def test_what_is_wrong_is_named(prompt: Prompt, parts: list[str]) -> None:
    lines = complaints(prompt)
    assert any(all(part in line for part in parts) for line in lines), lines


class Asked(io.ComfyNode):
    """Names one input, and one more behind a star, where ComfyUI does not look."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        value = io.Int.Input("value", default=1, min=0, max=10, optional=True)
        weight = io.Float.Input("weight", default=0.5, min=0.0, max=1.0, optional=True)
        return io.Schema(
            node_id="Asked", inputs=[value, weight, io.Int.Input("count", optional=True)], outputs=[io.Int.Output()]
        )

    @classmethod
    def validate_inputs(cls, value: int = 99, *, weight: float = 9.0) -> bool | str:
        assert isinstance(value, int), "stumbled"
        return f"value {value}, weight {weight}" if value > 10 else True

    @classmethod
    def execute(cls, value: int = 1, weight: float = 0.5, count: int = 0) -> io.NodeOutput:
        return io.NodeOutput(value)


@pytest.mark.parametrize(
    ("inputs", "lines"),
    [
        ({"value": 11}, ["node 1 Asked, input value: value 11, weight 9.0"]),
        ({"value": 11, "weight": 0.5}, ["node 1 Asked, input value: value 11, weight 9.0"]),
        ({"value": -1}, []),
        ({"value": 2, "weight": 7.0}, ["node 1 Asked, input weight: found 7.0; expected a number from 0.0 to 1.0"]),
        ({"value": 11, "count": "x"}, ['node 1 Asked, input count: found "x"', "node 1 Asked, input value: value 11"]),
        ({"value": "x"}, ['node 1 Asked, input value: found "x"']),
        ({"weight": 0.5}, []),
        ({}, []),
    ],
)
def test_a_node_is_asked_as_in_comfyui(inputs: dict[str, Any], lines: list[str]) -> None:
    """Its limits are its own then; it is asked whatever else is wrong, and not heard where nothing asks for it."""
    prompt, info = shown(node("Asked", **inputs)), ObjectInfo(CLASSES | {"Asked": Asked})
    if not lines:
        assert validate(prompt, info)[1] == ["0"]
        return
    with pytest.raises(GraphError) as refused:
        validate(prompt, info)
    assert len(refused.value.lines) == len(lines), refused.value.lines
    assert all(line.startswith(expected) for line, expected in zip(refused.value.lines, lines, strict=True))


def test_everything_is_said_at_once() -> None:
    prompt = shown(
        node("Number", value=99, colour="pink", weight=2.0),
        node("Nmber"),
        node("Even", value=1),
        node("Add", a=["1", 1], b=["2", 0]),
        node("Total", values=["4", 0], scale=["3", 7]),
    )
    lines = complaints(prompt)
    assert len(lines) == 7
    assert sum(line.startswith("node 1 Number") for line in lines) == 3


def test_a_circle_is_named_once() -> None:
    lines = complaints(shown(node("Add", a=["2", 0], b=["2", 0]), node("Add", a=["1", 0], b=["1", 0])))
    assert lines == ["the links run in a circle: 2 Add -> 1 Add -> 2 Add; take one of them away"]


def test_a_node_linked_to_itself_is_a_circle() -> None:
    lines = complaints(shown(node("Number", value=1), node("Add", a=["2", 0], b=["1", 0])))
    assert lines == ["the links run in a circle: 2 Add -> 2 Add; take one of them away"]


def test_long_chains_are_no_trouble() -> None:
    chain = [node("Number", value=1)] + [node("Add", a=[str(i), 0], b=[str(i), 0]) for i in range(1, 3000)]
    validate(shown(*chain), INFO)


@pytest.mark.parametrize(
    ("given_value", "name", "becomes"),
    [
        ("5", "value", 5),
        (5.9, "value", 5),
        (True, "value", 1),
        ("0.25", "weight", 0.25),
        (7, "text", "7"),
        (0, "on", False),
        ({"__value__": 3}, "value", 3),
    ],
)
def test_values_are_converted_as_in_comfyui(given_value: Any, name: str, becomes: Any) -> None:
    prompt = shown(node("Number", **({"value": 1} | {name: given_value})))
    checked, _ = validate(prompt, INFO)
    assert checked["1"]["inputs"][name] == becomes
    assert type(checked["1"]["inputs"][name]) is type(becomes)
    assert prompt["1"]["inputs"][name] == given_value


def test_unions_and_any_meet() -> None:
    validate(shown(node("Number", value=1), node("Seeded", seed=1, steps=2, start=["1", 0])), INFO)
    lines = complaints(shown(node("Number", value=1), node("Seeded", seed=1, steps=2, start=["1", 1])))
    assert "gives STRING; expected NUMBER,INT" in lines[0]
    validate(shown(node("Seeded", seed=1, steps=2, start=3)), INFO)  # A part of the union can be typed in.


def test_what_no_output_needs_may_be_wrong() -> None:
    validate(shown(node("Number", value=1)) | {"9": node("Number", value=99)}, INFO)


def test_unknown_inputs_are_left_alone_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        validate(shown(node("Number", value=1, valeu=["nowhere", 7])), INFO)
    assert 'node 1 Number, input valeu: unknown input, left out; did you mean "value"?' in caplog.text


def test_names_cannot_break_a_line() -> None:
    lines = complaints({"a\nb\x1b[31m\ud800": node("No\r\nde\u2028", **{"x\n": "y\n"}), "0": node("Show")})
    assert all("\n" not in line and line.isprintable() for line in lines)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
IDS = st.sampled_from(["1", "2", "3", "4", "0"])
LINKS = st.tuples(IDS, st.integers(-1, 2)).map(list)
INPUTS = st.dictionaries(
    st.sampled_from(["value", "a", "b", "values", "scale", "images", "way", "text", "seed", "steps"]),
    LINKS | JSON,
    max_size=4,
)
NODES = st.builds(lambda kind, inputs: node(kind, **inputs), st.sampled_from([*INFO, "Nope"]), INPUTS)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(IDS, NODES))
def test_random_graphs_are_accepted_or_refused_in_single_lines(prompt: Prompt) -> None:
    before = copy.deepcopy(prompt)
    try:
        validate(prompt, INFO)
    except GraphError as refused:
        assert refused.lines
        assert all(line and line.isprintable() and len(line) <= 600 for line in refused.lines)
    assert repr(prompt) == repr(before)


@settings(deadline=None, max_examples=300)
@given(JSON | st.dictionaries(IDS, JSON | NODES))
def test_random_documents_are_accepted_or_refused_in_single_lines(document: Any) -> None:
    try:
        validate(to_prompt(from_document(document), INFO), INFO)
    except GraphError as refused:
        assert refused.lines
        assert all(line and line.isprintable() for line in refused.lines)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (node("Number"), Kind.MISSING),
        (node("Number", value="many"), Kind.WRONG_TYPE),
        (node("Number", value=-1), Kind.TOO_SMALL),
        (node("Number", value=11), Kind.TOO_BIG),
        (node("Number", value=1, weight=math.nan), Kind.TOO_SMALL),
        (node("Number", value=1, colour="gren"), Kind.NOT_IN_LIST),
        (node("Number", value=["9", 0]), Kind.BAD_LINK),
        (node("Number", value=["4", 0]), Kind.MISMATCH),
        (node("Even", value=3), Kind.REFUSED),
        (node("Number", value=["1", 0]), Kind.CYCLE),
    ],
)
def test_outputs_that_depend_on_nothing_wrong_can_run(wrong: dict[str, Any], kind: Kind) -> None:
    prompt = {"1": wrong, "2": node("Number", value=2), "4": node("Paint", batch=1)}
    prompt |= {"5": node("Show", value=["1", 0]), "6": node("Show", value=["2", 0])}
    examined = examine(prompt, INFO)
    assert [(fault.kind, fault.node_ids) for fault in examined.faults] == [(kind, ("1",))]
    assert examined.runnable == ["6"]
    assert examine(prompt, INFO, wanted=["6"]).faults == []


def test_sound_is_what_depends_on_nothing_wrong_whether_or_not_an_output_needs_it() -> None:
    wrong = {"1": node("Number", value=99), "2": node("Add", a=["1", 0], b=1), "3": node("Add", a=["77", 0], b=1)}
    circle = {"4": node("Add", a=["5", 0], b=1), "5": node("Add", a=["4", 0], b=1), "6": node("Add", a=["5", 0], b=1)}
    right = {"7": node("Number", value="2"), "8": node("Add", a=["7", 0], b=1), "9": node("Show", value=["7", 0])}
    examined = examine(wrong | circle | right, INFO)
    assert (examined.faults, examined.runnable) == ([], ["9"])
    assert (examined.sound, examined.resting) == (["7", "8", "9"], ["8"])


def test_nothing_of_a_graph_with_an_unknown_class_can_run() -> None:
    prompt = {"1": node("Numbr"), "2": node("Number", value=2), "3": node("Show", value=["2", 0])}
    examined = examine(prompt, INFO)
    assert [fault.kind for fault in examined.faults] == [Kind.UNKNOWN_CLASS]
    assert examined.runnable == []


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 7)), min_size=8, max_size=8))
def test_an_output_can_run_where_no_circle_is_among_what_it_needs(links: list[tuple[int, int, int]]) -> None:
    prompt = {str(i): node("Add", a=[str(a), 0], b=[str(b), 0]) for i, (a, b, _) in enumerate(links)}
    prompt |= {f"out{i}": node("Show", value=[str(shown), 0]) for i, (_, _, shown) in enumerate(links)}
    sources = {i: {a, b} for i, (a, b, _) in enumerate(links)}
    reached = {i: set(after) for i, after in sources.items()}
    for _ in links:
        reached = {i: after.union(*(reached[j] for j in after)) for i, after in reached.items()}
    in_circles = {str(i) for i, after in reached.items() if i in after}
    examined = examine(prompt, INFO)
    good = [each for each in examined.outputs if in_circles.isdisjoint(needed(prompt, [each]))]
    assert examined.runnable == good


def test_a_run_that_is_being_stopped_does_not_disturb_the_check_of_another_graph() -> None:
    interrupt_current_processing()
    try:
        validate(shown(node("Even", value=2)), INFO)
        assert processing_interrupted()
    finally:
        interrupt_current_processing(False)
