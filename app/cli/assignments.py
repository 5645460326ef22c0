"""`--set NODE.INPUT=VALUE`: change values of a graph before it runs."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...host.errors import GraphError, closest, named, shown
from ...host.graph.workflow import Prompt, set_in_drawing
from ...host.schema.object_info import inputs_of


def apply(
    settings: Sequence[str],
    prompt: Prompt,
    drawing: dict[str, Any] | None,
    object_info: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any] | None:
    """Write settings into a graph.

    A value is JSON, or else plain text, since a shell takes quotes away.

    Returns:
        The drawing with the same values, for the files that the run saves; None where a value has no place in it, so
        that no file shows what did not make it.

    Raises:
        GraphError: a setting names a node or an input that is not there.
    """
    changed = copy.deepcopy(drawing) if settings else drawing
    wrong = []
    for setting in settings:
        try:
            node_id, name, value = parse(setting)
            info = _target(setting, node_id, name, prompt, object_info)
        except GraphError as error:
            wrong.extend(error.lines)
            continue
        prompt[node_id]["inputs"][name] = value
        if changed is not None and not set_in_drawing(changed, node_id, name, value, info):
            changed = None
    if wrong:
        raise GraphError(wrong)
    return changed


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
