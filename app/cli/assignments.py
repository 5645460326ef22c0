"""`--set NODE.INPUT=VALUE`: change values of a graph before it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...host.errors import GraphError, closest, named, shown
from ...host.graph.documents import Workflow
from ...host.graph.workflow import Prompt, assign
from ...host.schema.object_info import inputs_of


def apply(settings: Sequence[str], workflow: Workflow, object_info: Mapping[str, Mapping[str, Any]]) -> Workflow:
    """Return a workflow with settings written into both of its graphs.

    A value is JSON, or else plain text, since a shell takes quotes away.

    Args:
        workflow: with an API-format graph.

    Raises:
        GraphError: a setting names a node or an input that is not there.
    """
    wrong = []
    for setting in settings:
        try:
            node_id, name, value = parse(setting)
            info = _target(setting, node_id, name, workflow.prompt, object_info)
        except GraphError as error:
            wrong.extend(error.lines)
            continue
        workflow = assign(workflow, node_id, name, value, info)
    if wrong:
        raise GraphError(wrong)
    return workflow


def parse(setting: str) -> tuple[str, str, Any]:
    """Split a setting into node id, input and value.

    Raises:
        GraphError: it is not of the form NODE.INPUT=VALUE.
    """
    target, equals, text = setting.partition("=")
    node_id, dot, name = target.partition(".")
    if not (equals and dot and node_id and name):
        raise GraphError([f"--set {shown(setting)}: expected NODE.INPUT=VALUE, such as 3.seed=7"])
    try:
        return node_id, name, json.loads(text)
    except (ValueError, RecursionError):
        return node_id, name, text


def _target(
    setting: str, node_id: str, name: str, prompt: Prompt, object_info: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    if node_id not in prompt:
        hint = closest(node_id, prompt) or f"; its nodes are {', '.join(list(prompt)[:20])}"
        raise GraphError([f"--set {shown(setting)}: the workflow has no node {shown(node_id)}{hint}"])
    class_type = prompt[node_id]["class_type"]
    if class_type not in object_info:
        return {"input": {}}
    if name not in inputs_of(object_info[class_type]):
        hint = (
            closest(name, inputs_of(object_info[class_type]))
            or f"; it has {', '.join(inputs_of(object_info[class_type]))}"
        )
        raise GraphError([f"--set {shown(setting)}: {named(node_id, class_type)} has no input {shown(name)}{hint}"])
    return object_info[class_type]
