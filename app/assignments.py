"""Change values of a graph before it runs: `{"3.seed": 7}`, or `--set 3.seed=7`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..host.errors import GraphError, Hints, named, shown
from ..host.graph.documents import Workflow
from ..host.graph.mapping import is_link
from ..host.graph.workflow import Prompt, assign
from ..host.schema.object_info import InputInfo, inputs_of


def apply(settings: Mapping[str, Any], workflow: Workflow, object_info: Mapping[str, Mapping[str, Any]]) -> Workflow:
    """Return a workflow with values written into both of its graphs.

    Args:
        settings: values by "NODE.INPUT".
        workflow: with an API-format graph.

    Raises:
        GraphError: a node or an input is not there.
    """
    wrong = []
    hints = Hints()
    for target, value in settings.items():
        try:
            node_id, name, info = _find(target, workflow.prompt, object_info, hints)
        except GraphError as error:
            wrong.extend(error.lines)
            continue
        workflow = assign(workflow, node_id, name, _taken(value, inputs_of(info).get(name)), info)
    if wrong:
        raise GraphError(wrong)
    return workflow


def _taken(value: Any, spec: InputInfo | None) -> Any:
    """Return a value as an input takes it: JSON that is meant as a text, such as a prompt, stays JSON."""
    is_json = value is None or isinstance(value, bool | dict) or (isinstance(value, list) and not is_link(value))
    is_text = spec is not None and spec.widget_type == "STRING"
    return json.dumps(value, ensure_ascii=False) if is_json and is_text else value


def _find(
    target: str, prompt: Prompt, object_info: Mapping[str, Mapping[str, Any]], hints: Hints
) -> tuple[str, str, Mapping[str, Any]]:
    """Return the node's id, the input's name and what is known of the node's class."""
    node_id, _, name = target.partition(".")
    if not node_id or not name:
        raise GraphError([f"setting {shown(target)}: expected NODE.INPUT, such as 3.seed"])
    if node_id not in prompt:
        hint = hints.closest(node_id, prompt) or f"; its nodes are {', '.join(list(prompt)[:20])}"
        raise GraphError([f"setting {shown(target)}: the workflow has no node {shown(node_id)}{hint}"])
    class_type = prompt[node_id]["class_type"]
    if class_type not in object_info:
        return node_id, name, {"input": {}}
    info = object_info[class_type]
    known = inputs_of(info)
    if name not in known:
        hint = hints.closest(name, known) or f"; it has {', '.join(known)}"
        raise GraphError([f"setting {shown(target)}: {named(node_id, class_type)} has no input {shown(name)}{hint}"])
    return node_id, name, info
