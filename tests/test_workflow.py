"""UI-format files become the graphs that ComfyUI's interface makes of them."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from graph_nodes import INFO, node
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naming import naming
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tessera.host.errors import GraphError
from tessera.host.file_names import fill_in_prefixes
from tessera.host.settings import apply, parse
from tessera.host.validation import validate
from tessera.host.widgets import dynamic_prompt
from tessera.host.workflow import Prompt, Workflow, convert, from_document, read, to_prompt

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
    document = drawing(*SUM["nodes"], drawn(8, "Label (rgthree)"), links=[link[:5] for link in SUM["links"]])
    assert "8" not in convert(document, INFO)
    document["nodes"][1]["type"] = "Plus"
    with pytest.raises(GraphError, match=naming("node 2 Plus", "unknown")):
        validate(convert(document, INFO), INFO)


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
    drawn(1, "Seeded", [7, "fixed", 30], [("start", "NUMBER,INT", 1), ("steps", "INT", 2, "widget")], ["INT"]),
    drawn(2, "Add", [], [("a", "INT", 3), ("b", "INT", 4)], ["INT"]),
    links=[(1, -10, 0, 1, 0), (2, -10, 1, 1, 1), (3, 1, 0, 2, 0), (4, 1, 0, 2, 1), (5, 2, 0, -20, 0)],
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


def test_subgraphs_are_laid_open() -> None:
    prompt = convert(framed(), INFO)
    assert {node_id: each["inputs"] for node_id, each in prompt.items() if node_id != "1"} == {
        "3": {"value": ["2:2", 0]},
        "2:1": {"seed": 7, "steps": 30, "start": ["1", 0]},
        "2:2": {"a": ["2:1", 0], "b": ["2:1", 0]},
    }


@pytest.mark.parametrize(
    ("document", "steps"),
    [
        (framed([55]), 55),
        (framed([55], steps_link=12), ["1", 0]),
        (framed([None]), 30),
        (framed({"steps": 55}), 55),
        (framed([55], properties={"proxyWidgets": [["-1", "steps"]]}), 55),
        (framed([3, 55], properties={"proxyWidgets": [["1", "seed"], ["1", "steps"]]}), 55),
        (framed(properties={"proxyWidgets": [["1", "steps"]]}), 30),
    ],
)
def test_a_value_on_the_frame_comes_before_the_one_inside(document: dict[str, Any], steps: Any) -> None:
    assert inputs_of(document, "2:1")["steps"] == steps


def test_a_promoted_widget_without_a_link_is_set_too() -> None:
    document = framed([3, 55], properties={"proxyWidgets": [["1", "seed"], ["1", "steps"]]})
    assert inputs_of(document, "2:1")["seed"] == 3


NESTED = "99999999-2222-3333-4444-555555555555"
OUTER = subgraph(
    drawn(7, NESTED, [66], [("start", "INT", 1), ("steps", "INT", 2, "widget")], ["INT"]),
    links=[(1, -10, 0, 7, 0), (2, -10, 1, 7, 1), (3, 7, 0, -20, 0)],
    inputs=[("start", "INT"), ("steps", "INT")],
    outputs=["INT"],
)


@pytest.mark.parametrize(("values", "steps"), [([55], 55), (None, 66)])
def test_subgraphs_in_subgraphs(values: Any, steps: int) -> None:
    prompt = convert(framed(values, definitions=(OUTER, ADDER | {"id": NESTED})), INFO)
    assert prompt["3"]["inputs"] == {"value": ["2:7:2", 0]}
    assert prompt["2:7:1"]["inputs"] == {"seed": 7, "steps": steps, "start": ["1", 0]}


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
    assert dynamic_prompt("{a|{b|c}} {a") in {"a {a", "b {a", "c {a"}
    text = "{red|blue|green} moss"
    assert dynamic_prompt(text) == dynamic_prompt(text)
    assert {dynamic_prompt(text + " " * i).strip() for i in range(40)} == {"red moss", "blue moss", "green moss"}


@settings(deadline=None)
@given(st.text(alphabet="{}|\\ab/*\n", max_size=30))
def test_dynamic_prompts_end(text: str) -> None:
    assert isinstance(dynamic_prompt(text), str)


def test_tokens_of_file_names() -> None:
    prompt = {
        "1": node("Save", filename_prefix="%date:yyyy-MM-dd/hhmmss yy%_%The sampler.seed%_%width%_%Nothing.seed%"),
        "2": node("Seeded", seed="1/2") | {"_meta": {"title": "The sampler"}},
    }
    prompt["1"]["_meta"] = {"title": "Save"}
    fill_in_prefixes(prompt, time.struct_time((2026, 3, 9, 7, 5, 4, 0, 0, 0)))
    assert prompt["1"]["inputs"]["filename_prefix"] == "2026-03-09/070504 26_1_2_%width%_%Nothing.seed%"


API = {"1": node("Number", value=4), "2": node("Show", value=["1", 0])}


def png(path: Path, **chunks: Any) -> Path:
    """A picture with text chunks."""
    text = PngInfo()
    for key, value in chunks.items():
        (text.add_itxt if key == "prompt" else text.add_text)(
            key, value if isinstance(value, str) else json.dumps(value)
        )
    Image.new("RGB", (2, 2)).save(path, pnginfo=text)
    return path


def test_pictures_carry_graphs(tmp_path: Path) -> None:
    both = read(png(tmp_path / "a.png", prompt=API, workflow=SUM))
    assert (both.prompt, both.drawing) == (API, SUM)
    assert to_prompt(both, INFO) == API
    only_drawn = read(png(tmp_path / "b.png", workflow=SUM))
    assert to_prompt(only_drawn, INFO) == convert(SUM, INFO)


def test_api_format_with_and_without_meta(tmp_path: Path) -> None:
    with_meta = {node_id: each | {"_meta": {"title": "A"}} for node_id, each in API.items()}
    for document in (API, with_meta):
        (tmp_path / "a.json").write_text(json.dumps(document))
        assert to_prompt(read(tmp_path / "a.json"), INFO) == document


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "not JSON"),
        (b"[]", "expected a workflow"),
        (b"3", "expected a workflow"),
        (b"{}", "expected a workflow"),
        (b'{"a": 1}', "expected an object with class_type and inputs"),
        (b'{"a": {"class_type": "Show", "inputs": []}}', "expected an object with class_type and inputs"),
        (b"\x89PNG\r\n\x1a\n", "not a readable PNG"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "not a readable PNG"),
    ],
)
def test_a_file_that_is_no_workflow_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(GraphError, match=said) as refused:
        to_prompt(read(tmp_path / "a.json"), INFO)
    assert len(refused.value.lines) == 1


@pytest.mark.parametrize(
    ("chunks", "said"),
    [({}, "carries no workflow"), ({"prompt": "{"}, "chunk prompt: not JSON"), ({"workflow": "[]"}, "chunk workflow")],
)
def test_a_picture_without_a_graph_is_refused(tmp_path: Path, chunks: dict[str, str], said: str) -> None:
    with pytest.raises(GraphError, match=said):
        read(png(tmp_path / "a.png", **chunks))


def test_a_cut_picture_is_read_as_far_as_needed(tmp_path: Path) -> None:
    whole = png(tmp_path / "a.png", prompt=API).read_bytes()
    for end in range(len(whole)):
        (tmp_path / "b.png").write_bytes(whole[:end])
        try:
            assert read(tmp_path / "b.png").prompt == API
        except GraphError as refused:
            assert len(refused.lines) == 1


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "no.json", tmp_path):
        with pytest.raises(GraphError, match="expected a workflow file"):
            read(path)


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
    assert parse(f"2:7.a.b={text}") == ("2:7", "a.b", value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("3", "expected NODE.INPUT=VALUE"),
        ("3=4", "expected NODE.INPUT=VALUE"),
        (".a=4", "expected NODE.INPUT=VALUE"),
        ("77.value=4", 'no node "77"; its nodes are 1, 2'),
        ("1.valu=4", 'node 1 Number has no input "valu"; did you mean "value"?'),
    ],
)
def test_a_wrong_setting_is_refused(setting: str, said: str) -> None:
    with pytest.raises(GraphError) as refused:
        apply([setting, "nonsense"], copy.deepcopy(API), None, INFO)
    assert said in refused.value.lines[0]
    assert len(refused.value.lines) == 2


def test_settings_reach_the_graph_and_its_drawing() -> None:
    document = copy.deepcopy(SUM)
    prompt = convert(document, INFO)
    changed = apply(["1.value=9", "1.text=fern"], prompt, document, INFO)
    assert changed is not None
    assert convert(changed, INFO) == prompt
    assert prompt["1"]["inputs"]["value"] == 9
    assert document == SUM


def test_a_drawing_that_cannot_show_a_setting_is_not_saved() -> None:
    assert apply(["2.a=9"], convert(SUM, INFO), SUM, INFO) is None
    document = framed([55])
    assert apply(["2:1.seed=9"], convert(document, INFO), document, INFO) is None


WHOLE = [SUM, framed([55]), framed([3, 55], definitions=(OUTER, ADDER | {"id": NESTED}))]
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


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random"
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"{"):
        path.write_bytes(start + content)
        with pytest.raises(GraphError):
            to_prompt(read(path), INFO)


def test_a_workflow_needs_one_of_its_two_forms() -> None:
    prompt: Prompt = to_prompt(Workflow(prompt=API), INFO)
    prompt["1"]["inputs"]["value"] = 5
    assert API["1"]["inputs"]["value"] == 4
