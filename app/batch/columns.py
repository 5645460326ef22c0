"""What a column changes: `NODE.INPUT`, `TITLE.INPUT`, the title of a node, or an input that one node alone has."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...host.errors import GraphError, closest, listed, named, shown
from ...host.graph.mapping import is_link
from ...host.graph.workflow import Prompt
from ...host.schema.object_info import InputInfo, inputs_of

TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Target:
    """An input that a column changes."""

    node_id: str
    spec: InputInfo

    @property
    def setting(self) -> str:
        """The input as `--set` names it."""
        return f"{self.node_id}.{self.spec.name}"


def find_target(column: str, prompt: Prompt, info: Mapping[str, Mapping[str, Any]]) -> Target:
    """Return what a column changes.

    Raises:
        GraphError: nothing, or more than one input; the line says which there are.
    """
    found = _by_id(column, prompt, info) or _by_title(column, prompt, info) or _by_input(column, prompt, info)
    if len(found) == 1:
        return found[0]
    if found:
        raise GraphError(
            [f"column {shown(column)}: found {listed(each.setting for each in found)}; name one of them instead"]
        )
    names = [
        *(f"{i}.{name}" for i in prompt for name in _widgets(prompt[i], info)),
        *(title for title, _ in _titles(prompt)),
    ]
    hint = closest(column, names) or "; expected NODE.INPUT such as 3.seed, or the title of a node"
    raise GraphError([f"column {shown(column)}: the workflow has no such input{hint}"])


def _by_id(column: str, prompt: Prompt, info: Mapping[str, Mapping[str, Any]]) -> list[Target]:
    node_id, _, name = column.partition(".")
    return _input(node_id, name, prompt, info) if node_id in prompt else []


def _by_title(column: str, prompt: Prompt, info: Mapping[str, Mapping[str, Any]]) -> list[Target]:
    folded = column.strip().casefold()
    nodes = [node_id for title, node_id in _titles(prompt) if title.casefold() == folded]
    if len(nodes) == 1:
        widgets = _widgets(prompt[nodes[0]], info)
        same = [name for name in widgets if name.casefold() == folded]
        chosen = same or (list(widgets) if len(widgets) == 1 else _main_widgets(widgets))
        return [Target(nodes[0], widgets[name]) for name in chosen or widgets]
    if nodes:
        return [Target(node_id, spec) for node_id in nodes for spec in list(_widgets(prompt[node_id], info).values())]
    title, _, name = column.rpartition(".")
    above = [node_id for each, node_id in _titles(prompt) if each.casefold() == title.strip().casefold()]
    return [target for node_id in above if title for target in _input(node_id, name, prompt, info)]


def _main_widgets(widgets: Mapping[str, InputInfo]) -> list[str]:
    """Return what a node with several widgets is mostly there for, where that is beyond doubt."""
    return [name for name in ("text", "value", "image", "seed", "noise_seed", "prompt") if name in widgets][:1]


def _by_input(column: str, prompt: Prompt, info: Mapping[str, Mapping[str, Any]]) -> list[Target]:
    nodes = [node_id for node_id in prompt if column in _widgets(prompt[node_id], info)]
    return [target for node_id in nodes for target in _input(node_id, column, prompt, info)]


def _input(node_id: str, name: str, prompt: Prompt, info: Mapping[str, Mapping[str, Any]]) -> list[Target]:
    specs = inputs_of(info[prompt[node_id]["class_type"]])
    return [Target(node_id, specs[name])] if name in specs else []


def _widgets(node: Mapping[str, Any], info: Mapping[str, Mapping[str, Any]]) -> dict[str, InputInfo]:
    """Return the inputs of a node that values are typed into."""
    specs = inputs_of(info[node["class_type"]]) if node["class_type"] in info else {}
    return {name: spec for name, spec in specs.items() if spec.is_widget and not is_link(node["inputs"].get(name))}


def _titles(prompt: Prompt) -> list[tuple[str, str]]:
    """Return the titles of nodes, and whose they are."""
    metas = {node_id: node.get("_meta") for node_id, node in prompt.items()}
    found = [(str(meta.get("title") or "").strip(), i) for i, meta in metas.items() if isinstance(meta, dict)]
    return [(title, node_id) for title, node_id in found if title]


def value_of(target: Target, value: Any, is_text: bool, class_type: str) -> Any:
    """Return a cell's value as the input takes it.

    Args:
        is_text: the cell is text because its table knows nothing else.

    Raises:
        GraphError: it is not what the input takes.
    """
    kind = target.spec.widget_type
    if not is_text or not isinstance(value, str):
        if isinstance(value, float) and not math.isfinite(value):
            raise _refusal(target, value, class_type, "a number")
        return value
    if kind in ("STRING", "COMBO"):
        return _choice(target, value) if kind == "COMBO" else value
    if kind == "BOOLEAN":
        if value.strip().lower() not in TRUTHS:
            raise _refusal(target, value, class_type, "true or false")
        return TRUTHS[value.strip().lower()]
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _choice(target: Target, value: str) -> Any:
    """Return a choice; a combo box of numbers gets a number."""
    options = target.spec.options.get("options") or []
    return value if value in options else next((each for each in options if str(each) == value), value)


def _refusal(target: Target, value: Any, class_type: str, wanted: str) -> GraphError:
    place = named(target.node_id, class_type, target.spec.name)
    return GraphError([f"{place}: found {shown(value)}; expected {wanted}"])
