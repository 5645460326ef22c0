"""UI-format files become the graphs that ComfyUI's interface makes of them."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from drawings import (
    ADDER,
    API,
    BYPASSED,
    MUTED,
    NESTED,
    OUTER,
    SUBGRAPH,
    SUM,
    drawing,
    drawn,
    framed,
    inputs_of,
    subgraph,
)
from graph_nodes import INFO
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naming import naming
from tessera.app.assignments import apply
from tessera.app.cli.assignments import parse
from tessera.host.errors import GraphError
from tessera.host.graph.documents import Workflow
from tessera.host.graph.dynamic_prompts import dynamic_prompt
from tessera.host.graph.file_names import Tokens
from tessera.host.graph.node_ids import unique_ids
from tessera.host.graph.promotion import promote_all
from tessera.host.graph.ui_graph import read_graph
from tessera.host.graph.validation import validate
from tessera.host.graph.workflow import convert, from_document, to_prompt


def test_links_and_widgets() -> None:
    assert convert(SUM, INFO) == {
        "1": {
            "class_type": "Number",
            "inputs": {"value": 4, "weight": 0.25, "text": "moss", "on": False, "colour": "blue"},
            "_meta": {"title": "Number"},
        },
        "2": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": ["1", 0]}, "_meta": {"title": "The sum"}},
        "3": {"class_type": "Show", "inputs": {"value": ["2", 0]}, "_meta": {"title": "Show"}},
    }


def test_links_as_objects_mean_the_same() -> None:
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    objects = SUM | {"links": [dict(zip(keys, link, strict=True)) for link in SUM["links"]], "version": 1}
    assert convert(objects, INFO) == convert(SUM, INFO)


def test_links_that_were_taken_away_are_passed_over() -> None:
    assert convert(SUM | {"links": [None, *SUM["links"], None]}, INFO) == convert(SUM, INFO)


@pytest.mark.parametrize(
    ("values", "seed", "steps"),
    [
        ([7, "randomize", 30], 7, 30),
        ([7, "fixed", 30], 7, 30),
        ([7, 30], 7, 30),
        ([7], 7, 20),
        ([], 0, 20),
        (None, 0, 20),
        ([7, "randomize", None], 7, 20),
        ({"seed": 7, "steps": 30, "control_after_generate": "fixed"}, 7, 30),
    ],
)
def test_the_word_behind_a_seed_is_left_out(values: Any, seed: int, steps: int) -> None:
    assert inputs_of(drawing(drawn(1, "Seeded", values)), "1") == {"seed": seed, "steps": steps}


def test_values_by_name_are_used_where_there_are_no_others() -> None:
    document = drawing(drawn(1, "Seeded", widgets_values_named={"seed": 3, "steps": 4}))
    del document["nodes"][0]["widgets_values"]
    assert inputs_of(document, "1") == {"seed": 3, "steps": 4}


@pytest.mark.parametrize("values", [["b.png", "green", "image", 5], ["b.png", "green", 5]])
def test_the_label_of_an_upload_button_is_left_out(values: list[Any]) -> None:
    assert inputs_of(drawing(drawn(1, "Pick", values)), "1") == {"image": "b.png", "channel": "green", "border": 5}


def test_a_widget_turned_into_an_input_takes_the_link() -> None:
    document = drawing(
        drawn(1, "Number", [4], outputs=["INT", "STRING"]),
        drawn(2, "Seeded", [7, "fixed", 30], [("steps", "INT", 10, "widget")]),
        drawn(3, "Seeded", [7, "fixed", 30], [("steps", "INT", None, "widget")]),
        links=[(10, 1, 0, 2, 0)],
    )
    assert inputs_of(document, "2") == {"seed": 7, "steps": ["1", 0]}
    assert inputs_of(document, "3") == {"seed": 7, "steps": 30}


def test_primitives_hand_over_their_value_through_reroutes() -> None:
    document = drawing(
        drawn(1, "PrimitiveNode", [9, "fixed"], outputs=["INT"]),
        drawn(2, "Reroute", [], [("", "*", 10)], ["INT"]),
        drawn(3, "Reroute", [], [("", "*", 11)], ["INT"]),
        drawn(4, "Seeded", [7, "fixed", 30], [("steps", "INT", 12, "widget")]),
        links=[(10, 1, 0, 2, 0), (11, 2, 0, 3, 0), (12, 3, 0, 4, 0)],
    )
    assert convert(document, INFO) == {
        "4": {"class_type": "Seeded", "inputs": {"seed": 7, "steps": 9}, "_meta": {"title": "Seeded"}}
    }


@pytest.mark.parametrize("mode", [MUTED, BYPASSED])
def test_a_primitive_hands_over_its_value_whatever_its_mode(mode: int) -> None:
    document = drawing(
        drawn(1, "PrimitiveNode", [9, "fixed"], outputs=["INT"], mode=mode),
        drawn(4, "Seeded", [7, "fixed", 30], [("steps", "INT", 10, "widget")]),
        links=[(10, 1, 0, 4, 0)],
    )
    assert inputs_of(document, "4") == {"seed": 7, "steps": 9}


def test_a_list_value_is_not_taken_for_a_link() -> None:
    document = drawing(drawn(1, "Number", [4, 0.5, ["2", 0]]), drawn(2, "Number", [1]))
    assert inputs_of(document, "1")["text"] == {"__value__": ["2", 0]}


def test_muted_nodes_and_the_links_from_them_are_gone() -> None:
    document = copy.deepcopy(SUM)
    document["nodes"][0]["mode"] = MUTED
    assert inputs_of(document, "2") == {}
    assert "1" not in convert(document, INFO)


def test_bypassed_nodes_hand_on_what_has_the_type() -> None:
    document = drawing(
        drawn(1, "Number", [4], outputs=["INT", "STRING"]),
        drawn(2, "Paint", [1], outputs=["IMAGE"]),
        drawn(3, "Mixed", [], [("image", "IMAGE", 10), ("number", "INT", 11)], ["INT", "MODEL"], mode=BYPASSED),
        drawn(4, "Show", [], [("value", "INT", 12)]),
        drawn(5, "Show", [], [("value", "MODEL", 13)]),
        links=[(10, 2, 0, 3, 0), (11, 1, 0, 3, 1), (12, 3, 0, 4, 0), (13, 3, 1, 5, 0)],
    )
    assert inputs_of(document, "4") == {"value": ["1", 0]}
    assert inputs_of(document, "5") == {}


def test_bypassing_prefers_the_input_beside_the_output() -> None:
    document = drawing(
        drawn(1, "Number", [4], outputs=["INT", "STRING"]),
        drawn(2, "Add", [], [("a", "INT", 10), ("b", "INT", 11)], ["INT", "INT"], mode=BYPASSED),
        drawn(3, "Show", [], [("value", "INT", 12)]),
        drawn(4, "Show", [], [("value", "INT", 13)]),
        drawn(5, "Number", [5], outputs=["INT", "STRING"]),
        links=[(10, 1, 0, 2, 0), (11, 5, 0, 2, 1), (12, 2, 0, 3, 0), (13, 2, 1, 4, 0)],
    )
    assert inputs_of(document, "3") == {"value": ["1", 0]}
    assert inputs_of(document, "4") == {"value": ["5", 0]}


def test_an_unknown_drawing_aid_is_left_out_and_an_unknown_node_is_not() -> None:
    document = drawing(
        *copy.deepcopy(SUM["nodes"]), drawn(8, "Label (rgthree)"), links=[link[:5] for link in SUM["links"]]
    )
    assert "8" not in convert(document, INFO)
    document["nodes"][1]["type"] = "Plus"
    with pytest.raises(GraphError, match=naming("node 2 Plus", "unknown")):
        validate(convert(document, INFO), INFO)


def test_subgraphs_are_laid_open() -> None:
    prompt = convert(framed(), INFO)
    assert {node_id: each["inputs"] for node_id, each in prompt.items() if node_id != "1"} == {
        "3": {"value": ["2:12", 0]},
        "2:11": {"seed": 7, "steps": 30, "start": ["1", 0]},
        "2:12": {"a": ["2:11", 0], "b": ["2:11", 0]},
    }


@pytest.mark.parametrize(
    ("document", "steps"),
    [
        (framed([55]), 55),
        (framed([55], steps_link=12), ["1", 0]),
        (framed([None]), 30),
        (framed({"steps": 55}), 55),
        (framed([55], properties={"proxyWidgets": [["-1", "steps"]]}), 55),
        (framed([3, 55], properties={"proxyWidgets": [["11", "seed"], ["11", "steps"]]}), 55),
        (framed(properties={"proxyWidgets": [["11", "steps"]]}), 30),
    ],
)
def test_a_value_on_the_frame_comes_before_the_one_inside(document: dict[str, Any], steps: Any) -> None:
    assert inputs_of(document, "2:11")["steps"] == steps


def test_a_promoted_widget_without_a_link_is_set_too() -> None:
    document = framed([3, 55], properties={"proxyWidgets": [["11", "seed"], ["11", "steps"]]})
    assert inputs_of(document, "2:11")["seed"] == 3


@pytest.mark.parametrize(("values", "steps"), [([55], 55), (None, 66)])
def test_subgraphs_in_subgraphs(values: Any, steps: int) -> None:
    prompt = convert(framed(values, definitions=(OUTER, ADDER | {"id": NESTED})), INFO)
    assert prompt["3"]["inputs"] == {"value": ["2:7:12", 0]}
    assert prompt["2:7:11"]["inputs"] == {"seed": 7, "steps": steps, "start": ["1", 0]}


def test_a_bypassed_frame_hands_on_and_a_muted_one_does_not() -> None:
    assert inputs_of(framed(mode=BYPASSED), "3") == {"value": ["1", 0]}
    assert set(convert(framed(mode=MUTED), INFO)) == {"1", "3"}
    assert inputs_of(framed(mode=MUTED), "3") == {}


def test_an_input_of_a_frame_may_lead_straight_to_its_output() -> None:
    straight = subgraph(links=[(1, -10, 0, -20, 0)], inputs=[("start", "INT")], outputs=["INT"])
    assert inputs_of(framed(definitions=(straight,)), "3") == {"value": ["1", 0]}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (framed(definitions=(OUTER | {"nodes": [drawn(7, SUBGRAPH)]},)), "node 2:7 .*: the subgraph contains itself"),
        (drawing(drawn(1, "Show", [], [("value", "*", 5)])), naming("node 1 Show", "value", "link 5")),
        (
            drawing(drawn(1, "Show", [], [("value", "*", 5)]), links=[(5, 9, 0, 1, 0)]),
            'linked to node "9", which is not',
        ),
        (drawing(drawn(1, "Number"), drawn(1, "Show")), naming("two nodes", "1")),
        (drawing({"id": 1}), "expected an object with id and type"),
        (drawing(drawn(1, "Show"), links=[("a", "b")]), "expected id, node, slot, node, slot"),
        (
            drawing(
                drawn(1, "Reroute", [], [("", "*", 1)]),
                drawn(2, "Reroute", [], [("", "*", 2)]),
                drawn(3, "Show", [], [("value", "*", 3)]),
                links=[(1, 2, 0, 1, 0), (2, 1, 0, 2, 0), (3, 2, 0, 3, 0)],
            ),
            naming("node 3 Show", "value", "circle"),
        ),
    ],
)
def test_a_broken_drawing_is_refused_in_one_line(document: dict[str, Any], said: str) -> None:
    with pytest.raises(GraphError, match=said) as refused:
        convert(document, INFO)
    assert len(refused.value.lines) == 1


def test_subgraphs_that_explode_are_refused() -> None:
    names = [f"{i:08}-2222-3333-4444-555555555555" for i in range(8)]
    levels = [
        subgraph(*(drawn(k, inner) for k in range(10)), links=[], id_=name)
        for name, inner in zip(names, [*names[1:], "Note"], strict=True)
    ]
    with pytest.raises(GraphError, match=naming("nodes", 100000)):
        convert(drawing(drawn(1, names[0]), definitions={"subgraphs": levels}), INFO)


def test_dynamic_prompts() -> None:
    assert dynamic_prompt("a /* not this */ stone // nor this") == "a  stone "
    assert dynamic_prompt(r"\{a\|b\} {c}") == "{a|b} c"
    assert dynamic_prompt("{a|{b|c}} d") in {"a d", "b d", "c d"}
    assert dynamic_prompt("a {b c") == "a b c"
    assert dynamic_prompt("a } b {c} {") == "a } b c "
    assert dynamic_prompt("a {b} \\") == "a b \\"
    text = "{red|blue|green} moss"
    assert dynamic_prompt(text) == dynamic_prompt(text)
    assert {dynamic_prompt(text + " " * i).strip() for i in range(40)} == {"red moss", "blue moss", "green moss"}


@settings(deadline=None)
@given(st.text(alphabet="{}|\\ab/*\n", max_size=30))
def test_dynamic_prompts_end(text: str) -> None:
    assert isinstance(dynamic_prompt(text), str)


def filled(prefix: str, *nodes: dict[str, Any], **more: Any) -> str:
    """What becomes of a file name beside other nodes, on the ninth of March 2026."""
    top = read_graph(unique_ids(drawing(drawn(1, "Save", [prefix]), *nodes, **more)))
    promote_all(top)
    return Tokens(top, INFO, time.struct_time((2026, 3, 9, 7, 5, 4, 0, 0, 0))).fill(prefix)


ALIAS = "Node name for S&R"


def test_tokens_of_file_names() -> None:
    seeded = drawn(2, "Seeded", [7, "fixed", 30], title="The sampler")
    assert filled("%date:yyyy-MM-dd/hhmmss yy%") == "2026-03-09/070504 26"
    assert filled("%The sampler.seed%_%Seeded.steps%_%width%_%Nothing.seed%_%Seeded.no%", seeded) == (
        "7_30_%width%_%Nothing.seed%_%Seeded.no%"
    )


def test_tokens_name_aliases_before_titles_and_classes_where_there_is_no_alias() -> None:
    titled = drawn(2, "Seeded", [1, "fixed", 2], title="X")
    aliased = drawn(3, "Seeded", [7, "fixed", 30], properties={ALIAS: "X"})
    assert filled("%X.seed% %Seeded.seed%", titled, aliased) == "7 1"
    assert filled("%Seeded.seed%", aliased | {"title": "Y"}) == "%Seeded.seed%"


def test_tokens_have_what_is_typed_in_as_javascript_writes_it() -> None:
    number = drawn(2, "Number", [4, 3.0, "a/b:c|{d|e}\n", True, "blue"])
    assert filled("%Number.value% %Number.weight% %Number.text% %Number.on%", number) == "4 3 a_b_c_{d_e}_ true"


def test_tokens_name_frames_and_what_is_inside() -> None:
    frame = drawn(2, SUBGRAPH, [55], [("start", "INT", None), ("steps", "INT", None, "widget")], ["INT"], title="F")
    inside = {"definitions": {"subgraphs": [ADDER]}}
    assert filled("%F.steps% %Seeded.seed% %Seeded.steps% %F.start%", frame, **inside) == "55 7 30 %F.start%"


def test_tokens_have_what_a_primitive_types_in() -> None:
    document = drawing(
        drawn(1, "PrimitiveNode", [9, "randomize"], outputs=["INT"]),
        drawn(2, "Seeded", [7, "randomize", 30], [("seed", "INT", 10, "widget"), ("steps", "INT", 11, "widget")]),
        drawn(3, "Number", [20], (), ["INT"]),
        links=[(10, 1, 0, 2, 0), (11, 3, 0, 2, 1)],
    )
    tokens = Tokens(read_graph(document), INFO, time.localtime())
    # What another node computes is not known before the run.
    assert tokens.fill("%Seeded.seed% %Seeded.steps%") == "9 30"


def test_a_primitive_fills_in_tokens_where_it_is_asked_to() -> None:
    def shown(**properties: Any) -> Any:
        document = drawing(
            drawn(1, "PrimitiveNode", ["%Seeded.seed%"], outputs=["STRING"], properties=properties),
            drawn(2, "Number", [4, 1.0, "typed"], [("text", "STRING", 10, "widget")]),
            drawn(3, "Seeded", [7, "fixed", 30]),
            links=[(10, 1, 0, 2, 0)],
        )
        return inputs_of(document, "2")["text"]

    assert shown() == "%Seeded.seed%"
    assert shown(**{"Run widget replace on values": True}) == "7"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("green moss", "green moss"),
        ('"7"', "7"),
        ("", ""),
        ('["1", 0]', ["1", 0]),
        ("a=b", "a=b"),
        ("[" * 9999, "[" * 9999),
    ],
)
def test_settings_are_json_or_text(text: str, value: Any) -> None:
    assert parse([f"2:7.a.b={text}"]) == {"2:7.a.b": value}


def test_settings_that_cannot_be_read_are_refused_together() -> None:
    with pytest.raises(GraphError) as refused:
        parse(["3", "3=4", "1.value=9", ".a=4"])
    assert len(refused.value.lines) == 3
    for line, setting in zip(refused.value.lines, ["3", "3=4", ".a=4"], strict=True):
        assert f'"{setting}"' in line
        assert "expected NODE.INPUT=VALUE" in line


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("3", "expected NODE.INPUT"),
        (".a", "expected NODE.INPUT"),
        ("77.value", 'no node "77"; its nodes are 1, 2'),
        ("1.valu", 'node 1 Number has no input "valu"; did you mean "value"?'),
    ],
)
def test_a_wrong_setting_is_refused(target: str, said: str) -> None:
    with pytest.raises(GraphError) as refused:
        apply({target: 4, "nonsense": 4}, Workflow(API), INFO)
    assert said in refused.value.lines[0]
    assert len(refused.value.lines) == 2


def test_settings_reach_both_graphs_of_a_workflow() -> None:
    given = Workflow(convert(SUM, INFO), copy.deepcopy(SUM))
    changed = apply({"1.value": 9, "1.text": "fern"}, given, INFO)
    assert changed.ui_graph is not None
    assert convert(changed.ui_graph, INFO) == changed.prompt
    assert changed.prompt["1"]["inputs"]["value"] == 9
    assert given == Workflow(convert(SUM, INFO), SUM)


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ('{"sky": {"colour": "red"}}', '{"sky": {"colour": "red"}}'),
        ("[1, 2]", "[1, 2]"),
        ("true", "true"),
        ("null", "null"),
        ('"moss"', "moss"),
        ('["2", 0]', ["2", 0]),
    ],
)
def test_json_for_a_text_stays_json(typed: str, text: Any) -> None:
    changed = apply(parse([f"1.text={typed}", "1.on=true"]), Workflow(prompt=copy.deepcopy(API)), INFO)
    assert changed.prompt["1"]["inputs"]["text"] == text
    assert changed.prompt["1"]["inputs"]["on"] is True


def test_a_ui_graph_that_cannot_show_a_setting_is_not_saved() -> None:
    assert apply({"2.a": 9}, Workflow(convert(SUM, INFO), SUM), INFO).ui_graph is None
    document = framed([55])
    assert apply({"2:11.seed": 9}, Workflow(convert(document, INFO), document), INFO).ui_graph is None


GROUPED = drawing(
    drawn(5, "workflow/G", [9, "fixed", 30], [("start", "INT", None)], ["INT"]),
    extra={
        "groupNodes": {
            "G": {
                "nodes": [
                    {"type": "Seeded", "widgets_values": [1, "fixed", 2], "inputs": [{"name": "start"}]},
                    {"type": "Add", "inputs": [{"name": "a"}, {"name": "b"}]},
                ],
                "links": [[0, 0, 1, 0, 1, "INT"]],
                "external": [[0, 0, "INT"]],
                "config": {"0": {"input": {"start": {"name": "from"}}}},
            }
        }
    },
)
WHOLE = [SUM, GROUPED, framed([55]), framed([3, 55], definitions=(OUTER, ADDER | {"id": NESTED}))]
JUNK = st.none() | st.booleans() | st.integers(-30, 30) | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a document with another value in one place."""
    if not path:
        return value
    changed = copy.copy(document)
    changed[path[0]] = put(document[path[0]], path[1:], value)
    return changed


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A good UI-format file with junk, or another part of it, in a few places."""
    document: Any = draw(st.sampled_from(WHOLE))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(document)))
        other = draw(st.sampled_from(places(document)))
        part = document
        for key in other:
            part = part[key]
        document = put(document, path, draw(JUNK | st.just(part)))
    return document


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_damaged_files_are_converted_or_refused_in_single_lines(document: Any) -> None:
    try:
        validate(to_prompt(from_document(document), INFO), INFO)
    except GraphError as refused:
        assert refused.lines
        assert all(line and line.isprintable() and len(line) <= 600 for line in refused.lines)


@pytest.mark.parametrize("control", [True, False, None, 0, 7, "sometimes", "fixed", [], {}])
def test_whatever_stands_behind_a_seed_is_left_out(control: Any) -> None:
    assert inputs_of(drawing(drawn(1, "Seeded", [7, control, 30])), "1") == {"seed": 7, "steps": 30}


@pytest.mark.parametrize(
    ("values", "steps"), [([7, True], 20), ([7, "fixed"], 20), ([7, "sometimes"], 20), ([7, 30], 30), ([7, None], 20)]
)
def test_where_values_are_missing_their_types_say_which(values: list[Any], steps: int) -> None:
    assert inputs_of(drawing(drawn(1, "Seeded", values)), "1") == {"seed": 7, "steps": steps}


DYNAMIC = {
    "input": {
        "required": {
            "box": ("BOUNDING_BOX", {"default": {"x": 0}}),
            "way": (
                "COMFY_DYNAMICCOMBO_V3",
                {
                    "options": [
                        {"key": "by size", "inputs": {"required": {"width": ("INT", {"default": 5})}}},
                        {"key": "by factor", "inputs": {"required": {"factor": ("FLOAT", {}), "image": ("IMAGE",)}}},
                    ]
                },
            ),
            "pair": ("IMAGECOMPARE", {}),
            "number": ("FLOAT,INT", {"widgetType": "FLOAT", "default": 1.0}),
            "tint": ("COLOR", {}),
            "name": ("COMBO", {"options": ["a", "b"], "control_after_generate": True}),
            "last": ("STRING", {}),
        }
    },
    "output": [],
    "display_name": "Dynamic",
}


@pytest.mark.parametrize(
    ("way", "shown"),
    [(["by size", 64], {"way.width": 64}), (["by factor", 2.5], {"way.factor": 2.5}), (["neither"], {})],
)
def test_other_widgets_take_their_places(way: list[Any], shown: dict[str, Any]) -> None:
    values = [{"x": 1}, 1, 2, 3, 4, *way, 0.5, "#123456", "b", "fixed", "", "end"]
    made = convert(drawing(drawn(1, "Dynamic", values)), {"Dynamic": DYNAMIC})["1"]["inputs"]
    assert made == {
        "box": {"x": 1},
        "way": way[0],
        **shown,
        "pair": {"__value__": ["", ""]},
        "number": 0.5,
        "tint": "#123456",
        "name": "b",
        "last": "end",
    }


def test_values_of_inputs_that_are_forced_to_be_links_are_dropped() -> None:
    info = {"input": {"required": {"a": ("INT", {"forceInput": True}), "b": ("INT", {})}}, "output": []}
    assert convert(drawing(drawn(1, "Forced", [3, 4])), {"Forced": info})["1"]["inputs"] == {"b": 4}


def test_samplers_lose_an_old_prefix() -> None:
    info = {"input": {"required": {"sampler_name": ("COMBO", {"options": ["euler"]})}}, "output": []}
    for kind, name in (("KSampler", "euler"), ("Other", "sample_euler")):
        made = convert(drawing(drawn(1, kind, ["sample_euler"])), {kind: info})
        assert made["1"]["inputs"] == {"sampler_name": name}


PROMPT = "{red|red} tiles // not this"
TEXT = subgraph(
    drawn(11, "Number", [1, 0.5, PROMPT], [("text", "STRING", 1, "widget")], ["INT", "STRING"]),
    links=[(1, -10, 0, 11, 2), (2, 11, 0, -20, 0)],
    inputs=[("text", "STRING")],
    outputs=["INT"],
)
TEXT["nodes"][0]["inputs"] = [{"name": "value"}, {"name": "weight"}, *TEXT["nodes"][0]["inputs"]]


@pytest.mark.parametrize(("values", "text"), [([], PROMPT), (None, PROMPT), (["{a|a} // b"], "{a|a} // b")])
def test_a_promoted_text_is_sent_as_it_is(values: Any, text: str) -> None:
    document = drawing(
        drawn(2, SUBGRAPH, values, [("text", "STRING", None, "widget")], ["INT"]), definitions={"subgraphs": [TEXT]}
    )
    assert inputs_of(document, "2:11")["text"] == text


@pytest.mark.parametrize(("values", "text"), [([], PROMPT), (["{a|a} // b"], "{a|a} // b")])
def test_a_text_that_is_promoted_without_a_link_is_sent_as_it_is(values: Any, text: str) -> None:
    unlinked = subgraph(drawn(11, "Number", [1, 0.5, PROMPT], (), ["INT"]), links=[(1, 11, 0, -20, 0)], outputs=["INT"])
    frame = drawn(2, SUBGRAPH, values, (), ["INT"], properties={"proxyWidgets": [["11", "text"]]})
    other = drawn(3, SUBGRAPH, None, (), ["INT"])
    document = drawing(frame, other, definitions={"subgraphs": [unlinked]})
    assert inputs_of(document, "2:11")["text"] == text
    assert inputs_of(document, "3:11")["text"] == PROMPT
    document["nodes"][0]["properties"] = {}
    assert inputs_of(document, "2:11")["text"] == "red tiles "


def test_an_input_that_a_muted_node_feeds_keeps_what_is_typed_in() -> None:
    document = drawing(
        drawn(1, "Number", [4], (), ["INT"], mode=MUTED),
        drawn(2, "Seeded", [7, "fixed", 30], [("steps", "INT", 10, "widget")]),
        links=[(10, 1, 0, 2, 0)],
    )
    assert inputs_of(document, "2") == {"seed": 7, "steps": 30}


def test_ids_that_occur_twice_are_numbered_on() -> None:
    inner = subgraph(
        drawn(1, "Seeded", [7, "fixed", 30], (), ["INT"]),
        drawn(9, "Add", [], [("a", "INT", 1), ("b", "INT", 1)], ["INT"]),
        links=[(1, 1, 0, 9, 0), (2, 9, 0, -20, 0)],
        outputs=["INT"],
    )
    frame = drawn(2, SUBGRAPH, [55], (), ["INT"], properties={"proxyWidgets": [["1", "steps"]]})
    document = drawing(drawn(1, "Number"), frame, definitions={"subgraphs": [inner]}, last_node_id=5)
    prompt = convert(document, INFO)
    assert prompt["2:6"]["inputs"] == {"seed": 7, "steps": 55}
    assert prompt["2:9"]["inputs"]["a"] == ["2:6", 0]
    assert set(prompt) == {"1", "2:6", "2:9"}


def test_values_on_a_frame_follow_the_definition_not_the_frame() -> None:
    inner = subgraph(
        drawn(11, "Seeded", [7, "fixed", 30], [("seed", "INT", 1, "widget"), ("steps", "INT", 2, "widget")], ["INT"]),
        links=[(1, -10, 0, 11, 0), (2, -10, 1, 11, 1), (3, 11, 0, -20, 0)],
        inputs=[("seed", "INT"), ("steps", "INT")],
        outputs=["INT"],
    )
    frame = drawn(2, SUBGRAPH, [3, 55], [("steps", "INT", None, "widget"), ("seed", "INT", None, "widget")], ["INT"])
    assert inputs_of(drawing(frame, definitions={"subgraphs": [inner]}), "2:11") == {"seed": 3, "steps": 55}
