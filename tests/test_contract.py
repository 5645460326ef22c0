"""The node contract: a saved workflow opens and means the same in every later version."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graph_nodes import Show
from landed_prompts import MORE, cases, prompt_around, runs
from node_contract import breaks, golden, is_widget, landed, meant, present, with_version
from tessera.app.registry import node_classes
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.graph.execution import Cache, Run
from tessera.host.graph.validation import validate
from tessera.host.graph.workflow import Prompt, from_document, to_prompt
from tessera.host.schema.object_info import InputInfo, ObjectInfo, inputs_of
from tessera.nodes import NODES

HOW = "a saved workflow would break; add behind what is there, or give a renamed node a replacement entry"


@pytest.fixture(autouse=True)
def models(tmp_path: Path) -> Iterator[Path]:
    """Empty folders for everything; the one of the models. Lists of files are no promise."""
    folder_paths.configure(str(tmp_path / "models"), str(tmp_path / "input"), str(tmp_path / "output"))
    yield tmp_path / "models"
    folder_paths.configure()


@pytest.fixture
def info(models: Path) -> ObjectInfo:
    """All nodes, one that shows anything, and a file for each input that takes nothing else."""
    checker = models / "safety_checker" / "checker" / "model.safetensors"
    checker.parent.mkdir(parents=True)
    checker.touch()
    return ObjectInfo(node_classes() | {"Show": Show})


@pytest.mark.parametrize("node_id", golden())
def test_promise_is_kept(node_id: str) -> None:
    assert node_id in present(), HOW
    assert not breaks(golden()[node_id], present()[node_id]), HOW


def test_golden_file_is_up_to_date() -> None:
    assert golden() == present(), "run python tests/node_contract.py and commit the difference"


def test_landed_inputs_are_up_to_date() -> None:
    assert with_version(landed(), present()) == landed(), "run python tests/node_contract.py and commit the difference"


def changed(place: int = 1, node_id: str = "TesseraSeamlessModel", **change: Any) -> dict[str, Any]:
    node = copy.deepcopy(golden()[node_id])
    node["inputs"][place] |= change
    return node


def moved(node_id: str, name: str, behind: str) -> dict[str, Any]:
    """A node with one of its inputs moved behind another."""
    node = copy.deepcopy(golden()[node_id])
    names = [each["name"] for each in node["inputs"]]
    entry = node["inputs"].pop(names.index(name))
    names.remove(name)
    node["inputs"].insert(names.index(behind) + 1, entry)
    return node


@pytest.mark.parametrize(
    ("node_id", "new"),
    [
        ("TesseraSeamlessModel", changed(name="direction")),
        ("TesseraSeamlessModel", changed(type="STRING")),
        ("TesseraSeamlessModel", changed(default="off")),
        ("TesseraSeamlessModel", changed(options=["both", "off"])),
        ("TesseraSeamlessModel", changed(2, required=True)),
        ("TesseraSeamlessModel", changed(0, required=False)),
        ("TesseraSafetyFilter", changed(1, "TesseraSafetyFilter", required=False)),
        ("TesseraEnhancePrompt", changed(3, "TesseraEnhancePrompt", control_after_generate=None)),
        ("TesseraSeamlessModel", {"inputs": golden()["TesseraSeamlessModel"]["inputs"][::-1], "outputs": []}),
        ("TesseraSeamlessModel", moved("TesseraSeamlessModel", "tiling", "method")),
        ("TesseraSchedulerKSampler", moved("TesseraSchedulerKSampler", "seed", "scheduler")),
        ("TesseraSchedulerKSampler", moved("TesseraSchedulerKSampler", "positive", "negative")),
    ],
)
def test_breaking_changes_are_found(node_id: str, new: dict[str, Any]) -> None:
    assert breaks(golden()[node_id], new)


def test_a_required_addition_breaks_api_prompts() -> None:
    new = copy.deepcopy(golden()["TesseraSeamlessVAE"])
    new["inputs"].append({"name": "strength", "type": "FLOAT", "required": True, "default": 1.0})
    assert breaks(golden()["TesseraSeamlessVAE"], new)


def test_additions_are_allowed() -> None:
    options = golden()["TesseraSeamlessModel"]["inputs"][1]["options"]
    new = changed(options=[*options, "diagonal"])
    new["inputs"].append({"name": "strength", "type": "FLOAT", "required": False})
    assert not breaks(golden()["TesseraSeamlessModel"], new)


def test_a_trailing_input_with_a_default_may_become_optional() -> None:
    """As the editor draws it: behind the required inputs, so links before it may stay where they were in the file."""
    old = moved("TesseraSchedulerKSampler", "spacing", "scheduler")
    spacing = next(each for each in old["inputs"] if each["name"] == "spacing")
    spacing["required"] = True
    assert not breaks(old, golden()["TesseraSchedulerKSampler"])


@pytest.mark.parametrize("node", NODES)
def test_a_prompt_without_an_optional_input_means_what_it_did_when_that_input_came(node: Any) -> None:
    signature, node_id = inspect.signature(node.execute), node.GET_SCHEMA().node_id
    takes_all = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    for each in node.GET_SCHEMA().inputs:
        if not each.optional:
            continue
        if each.id not in signature.parameters:
            assert takes_all, each.id
        elif getattr(each, "default", None) is not None:
            assert signature.parameters[each.id].default == meant(node_id, each.id), each.id
        else:
            assert not signature.parameters[each.id].default, each.id


@pytest.mark.parametrize("node_id", golden())
def test_widgets_behind_an_optional_one_are_optional(node_id: str) -> None:
    """The editor draws optional inputs last; the declaration says so itself, so that nobody reads another order."""
    declared = next(node for node in NODES if node.GET_SCHEMA().node_id == node_id).GET_SCHEMA().inputs
    drawn = [each["name"] for each in golden()[node_id]["inputs"] if is_widget(each)]
    assert [each.id for each in declared if each.id in drawn] == drawn


@pytest.fixture(scope="module")
def cache() -> Cache:
    """What is alike in all graphs is made once."""
    return Cache()


@pytest.mark.parametrize(("node_id", "names"), [*cases("accepted"), *cases("saved")])
def test_prompts_of_landed_versions_are_taken(node_id: str, names: list[str], info: ObjectInfo) -> None:
    prompt = prompt_around(node_id, names, info[node_id], ("Show", "value"))
    checked, outputs = validate(prompt, info)
    assert outputs
    assert checked == prompt


@pytest.mark.parametrize(("node_id", "names"), runs())
def test_the_fewest_inputs_run(node_id: str, names: list[str], info: ObjectInfo, cache: Cache) -> None:
    prompt = prompt_around(node_id, names, info[node_id], ("Show", "value"))
    prompt["node"]["inputs"].update(MORE.get(node_id, {}))
    run = Run(*validate(prompt, info), info, cache)
    run.start()
    assert set(run.entries) >= {"node"}


@pytest.mark.parametrize(
    ("node_id", "saved"), [(node_id, saved) for node_id, each in landed().items() for saved in each["saved"]]
)
def test_values_of_saved_files_stay_with_their_widgets(node_id: str, saved: dict[str, Any], info: ObjectInfo) -> None:
    """A landed version's editor wrote the values in its order, with a word behind a seed."""
    kinds = inputs_of(info[node_id])
    typed = {name: some_value(kinds[name], place) for place, name in enumerate(saved) if kinds[name].is_widget}
    written: list[Any] = []
    for name, value in typed.items():
        written += [value, "randomize"] if kinds[name].options.get("control_after_generate") else [value]
    node = {"id": 1, "type": node_id, "inputs": [], "outputs": [], "widgets_values": written}
    read = to_prompt(from_document({"nodes": [node], "links": []}), info)["1"]["inputs"]
    assert {name: read[name] for name in typed} == typed


def some_value(kind: InputInfo, place: int) -> Any:
    """A value of an input's type that its neighbours do not have."""
    if kind.type == "COMBO":
        return kind.options["options"][-1]
    return {"STRING": f"text {place}", "BOOLEAN": place % 2 == 0}.get(kind.type, place)


@pytest.mark.parametrize(("node_id", "names"), cases("accepted"))
def test_each_of_the_fewest_inputs_is_needed(node_id: str, names: list[str], info: ObjectInfo) -> None:
    for name in names:
        if inputs_of(info[node_id])[name].required:
            prompt = prompt_around(node_id, [each for each in names if each != name], info[node_id], ("Show", "value"))
            assert any(f"input {name}: missing" in line for line in complaints(prompt, info))


def complaints(prompt: Prompt, info: ObjectInfo) -> list[str]:
    with pytest.raises(GraphError) as refused:
        validate(prompt, info)
    return refused.value.lines
