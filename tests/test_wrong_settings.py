"""Settings that are wrong are said before the run, on their node, by `tessera check`."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from graph_nodes import Show
from landed_prompts import Prompt, prompt_with
from node_contract import meant
from tessera.app.cli.main import main
from tessera.app.registry import node_classes
from tessera.host import folder_paths
from tessera.host.schema import io
from tessera.host.schema.node import overrides
from tessera.host.schema.object_info import ObjectInfo
from tessera.nodes import NODES
from wrong_settings import CASES, right, wrong

CLASSES = node_classes() | {"Show": Show}
INFO = ObjectInfo(CLASSES)


def checked(
    node_id: str, inputs: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str]]:
    """The exit code of `tessera check`, and its error lines."""
    prompt: Prompt = prompt_with(node_id, inputs, INFO[node_id], ("Show", "value"))
    path = folder / "graph.json"
    path.write_text(json.dumps(prompt), encoding="utf-8")
    code = main(["check", str(path)])
    return code, capsys.readouterr().err.splitlines()


@pytest.fixture(autouse=True)
def _classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tessera.app.registry.node_classes", lambda: CLASSES)
    yield
    folder_paths.configure()


@pytest.mark.parametrize(("node_id", "inputs", "name", "parts"), wrong())
def test_check_names_node_class_and_input(
    node_id: str,
    inputs: dict[str, Any],
    name: str,
    parts: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, lines = checked(node_id, inputs, tmp_path, capsys)
    assert (code, len(lines)) == (2, 1), lines
    head, _, said = lines[0].partition(": ")
    assert head.startswith(f"node node {node_id}, input ")
    assert name in head.partition(", input ")[2].split(", ")
    assert all(part in said for part in parts), lines
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(("node_id", "inputs"), right())
def test_nothing_is_said_against_the_rest(
    node_id: str, inputs: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(node_id, inputs, tmp_path, capsys) == (0, [])


OWN_RULES = [node for node in NODES if overrides(node, "validate_inputs")]


@pytest.mark.parametrize("node", OWN_RULES)
def test_every_rule_has_a_case(node: Any) -> None:
    assert node.GET_SCHEMA().node_id in {case[0] for case in CASES}


def limits() -> list[Any]:
    """Each input whose limits a host leaves to the node, with a value beyond them."""
    found = []
    for node in OWN_RULES:
        schema = node.GET_SCHEMA()
        asked = inspect.getfullargspec(node.validate_inputs).args[1:]
        for each in schema.inputs:
            beyond: list[Any] = ["no such choice"] if each.get_io_type() == "COMBO" else []
            low, high = getattr(each, "min", None), getattr(each, "max", None)
            beyond += [low - 1] if low is not None else []
            beyond += [high + 1] if high is not None else []
            if each.id in asked:
                found += [
                    pytest.param(schema.node_id, each.id, value, id=f"{schema.node_id}-{each.id}-{number}")
                    for number, value in enumerate(beyond)
                ]
    return found


@pytest.mark.parametrize(("node_id", "name", "value"), limits())
def test_no_limit_is_lost(
    node_id: str, name: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    required = [each for each in CLASSES[node_id].GET_SCHEMA().inputs if isinstance(each, io.WidgetInput)]
    good = {each.id: "moss" if each.default == "" else each.default for each in required if not each.optional}
    if node_id in ("TesseraWrapPad", "TesseraWrapCrop"):
        good["image"] = ["image", 0]
    code, lines = checked(node_id, good | {name: value}, tmp_path, capsys)
    assert (code, len(lines)) == (2, 1), lines
    assert f"input {name}: " in lines[0]
    assert str(value) in lines[0]


@pytest.mark.parametrize("node", OWN_RULES)
def test_an_input_left_out_counts_as_its_default(node: Any) -> None:
    declared = {each.id: each for each in node.GET_SCHEMA().inputs}
    for name, parameter in list(inspect.signature(node.validate_inputs).parameters.items()):
        if getattr(declared[name], "default", None) is not None and declared[name].optional:
            assert parameter.default == meant(node.GET_SCHEMA().node_id, name), name
        else:
            assert parameter.default is not parameter.empty, f"{name}: a host may ask without it"


@pytest.mark.parametrize("node", OWN_RULES)
def test_linked_values_wait_for_the_run(node: Any) -> None:
    names = list(inspect.signature(node.validate_inputs).parameters)
    assert node.validate_inputs(**dict.fromkeys(names)) is True


@pytest.mark.parametrize("node", OWN_RULES)
def test_what_is_of_another_type_is_left_to_the_host(node: Any) -> None:
    """ComfyUI says what could not become a number, and asks the node all the same."""
    names = list(inspect.signature(node.validate_inputs).parameters)
    for value in ("many", {}, ["1"], 3.5, True):
        assert isinstance(node.validate_inputs(**dict.fromkeys(names, value)), (bool, str))
