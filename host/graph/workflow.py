"""Workflow files: API-format JSON, UI-format JSON, and images or latents that carry either, become API-format graphs.

An API-format graph is `{node id: {"class_type": ..., "inputs": {name: value or [node id, output]}}}`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files.reading import read_file
from ..errors import GraphError, shown
from ..schema.object_info import inputs_of
from . import image_metadata
from .documents import Workflow, from_document, parse
from .file_names import Tokens
from .group_nodes import unfold
from .node_ids import unique_ids
from .promotion import Value, frame_value, promote_all
from .sources import OnFrame, source
from .ui_graph import STORED, Graph, every_node, read_graph, slots
from .virtual_nodes import VIRTUAL_NODES
from .widget_slots import positions
from .widgets import sent, stored_values

log = logging.getLogger(__name__)

KEYWORDS = ("prompt", "workflow", "json")
"""Of texts in an image that may be a graph; EXIF has the last one without a keyword."""

MOST_BYTES = 2**29
"""Of a file: images with a workflow are that large, and no workflow is."""

Prompt = dict[str, dict[str, Any]]


def read(path: str | Path) -> Workflow:
    """Read a workflow file.

    Raises:
        GraphError: the file cannot be read, or carries no workflow.
    """
    try:
        content = read_file(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GraphError(
            [f"{path}: {reason}; expected a workflow file: .json, or an image that ComfyUI saved"]
        ) from error
    kind = image_metadata.kind(content)
    return _from_texts(path, kind, content) if kind else from_document(parse(content, str(path)), str(path))


def _from_texts(path: str | Path, kind: str, content: bytes) -> Workflow:
    try:
        texts = image_metadata.texts(content, KEYWORDS)
    except ValueError as error:
        raise GraphError([f"{path}: not a readable {kind} ({error}); expected a file that ComfyUI saved"]) from error
    found = Workflow()
    refused: list[str] = []
    for key in KEYWORDS:
        if key not in texts:
            continue
        try:
            name = f"{path}, {image_metadata.PLACES.get(kind, 'EXIF')} {key}"
            each = from_document(parse(texts[key], name), name)
        except GraphError as error:
            refused.extend(error.lines)
            continue
        found.prompt = each.prompt if found.prompt is None else found.prompt
        found.ui_graph = found.ui_graph or each.ui_graph
    if found.prompt is None and found.ui_graph is None:
        raise GraphError(
            refused[:1] or [f"{path}: the {kind} carries no workflow; expected a file saved with its metadata"]
        )
    return found


def to_prompt(
    workflow: Workflow, object_info: Mapping[str, Mapping[str, Any]], now: time.struct_time | None = None
) -> Prompt:
    """Return the API-format graph of a workflow; a UI-format one is converted as ComfyUI's interface does it.

    Where a file has both, the API-format graph is what was run, and the other adds what newer nodes ask for.

    Args:
        now: what dates in file names are filled in with; the time of this call by default.

    Raises:
        GraphError: it is not what either format says.
    """
    if workflow.prompt is None:
        return convert(workflow.ui_graph or {}, object_info, now)
    wrong = [
        f"node {shown(node_id)}: found {shown(node)}; expected an object with class_type and inputs; export it again"
        for node_id, node in (
            workflow.prompt.items() if isinstance(workflow.prompt, dict) else [("?", workflow.prompt)]
        )
        if not isinstance(node, dict)
        or not isinstance(node.get("class_type"), str)
        or not isinstance(node.get("inputs", {}), dict)
    ]
    if wrong:
        raise GraphError(wrong)
    prompt = {node_id: node | {"inputs": dict(node.get("inputs", {}))} for node_id, node in workflow.prompt.items()}
    if workflow.ui_graph is not None and any(_lacks_values(node, object_info) for node in prompt.values()):
        _complete(prompt, workflow.ui_graph, object_info)
    return prompt


def _lacks_values(node: Mapping[str, Any], object_info: Mapping[str, Mapping[str, Any]]) -> bool:
    info = object_info.get(node["class_type"])
    return info is not None and any(
        each.is_widget and name not in node["inputs"] for name, each in inputs_of(info).items()
    )


def _complete(prompt: Prompt, ui_graph: Mapping[str, Any], object_info: Mapping[str, Mapping[str, Any]]) -> None:
    """Give nodes of a graph the typed in values that they lack and the same nodes of the UI-format graph have."""
    try:
        shown_values = convert(ui_graph, object_info)
    except GraphError as error:
        log.warning("the UI-format graph beside the API-format one is not read: %s", error.lines[0])
        return
    for node_id, node in prompt.items():
        same = shown_values.get(node_id)
        if same is not None and same["class_type"] == node["class_type"]:
            values = {name: value for name, value in same["inputs"].items() if not isinstance(value, list)}
            node["inputs"] = values | node["inputs"]


def convert(
    document: Mapping[str, Any],
    object_info: Mapping[str, Mapping[str, Any]],
    now: time.struct_time | None = None,
) -> Prompt:
    """Return a UI-format document as an API-format graph.

    Args:
        now: what dates in file names are filled in with; the time of this call by default.

    Raises:
        GraphError: the document is not what the format says, or its links lead nowhere.
    """
    top = read_graph(unfold(unique_ids(document), object_info))
    promote_all(top)
    tokens = Tokens(top, object_info, now or time.localtime())
    prompt: Prompt = {}
    wrong: list[str] = []
    for graph, node in every_node(top):
        if node["type"] in VIRTUAL_NODES:
            continue
        if node["type"] not in object_info and not _is_connected(node):
            log.warning("%s: left out, it is not known and nothing is connected to it", graph.name(node))
            continue
        try:
            prompt[f"{graph.path}{node['id']}"] = _convert_node(graph, node, object_info, tokens)
        except GraphError as error:
            wrong.extend(error.lines)
    if wrong:
        raise GraphError(wrong)
    for node in prompt.values():
        node["inputs"] = {
            name: value for name, value in node["inputs"].items() if not isinstance(value, list) or value[0] in prompt
        }
    tokens.fill_prefixes(prompt)
    return prompt


def _is_connected(node: Mapping[str, Any]) -> bool:
    return any(slot.get("link") is not None for slot in slots(node, "inputs")) or any(
        slot.get("links") for slot in slots(node, "outputs")
    )


def _convert_node(
    graph: Graph, node: Mapping[str, Any], object_info: Mapping[str, Mapping[str, Any]], tokens: Tokens
) -> dict[str, Any]:
    info = object_info.get(node["type"])
    stored = stored_values(node, info) if info else {}
    inputs: dict[str, Any] = {name: sent(name, value, info) for name, value in stored.items()} if info else {}
    for (node_id, name), value in graph.overrides.items():
        if node_id == str(node["id"]) and name in stored:
            inputs[name] = stored[name] if value is STORED else value
    inputs = {name: _wrapped(value) for name, value in inputs.items()}
    for index, slot in enumerate(slots(node, "inputs")):
        name = str(slot.get("name"))
        found = source(graph, node, index)
        if isinstance(found, OnFrame):
            found = frame_value(found.inner, found.slot, object_info)
        if isinstance(found, Value):
            value = tokens.fill(found.value) if found.tokens and isinstance(found.value, str) else found.value
            inputs[name] = _wrapped(sent(name, value, info) if found.typed and info else value)
        elif found is not None:
            inputs[name] = list(found)
    title = node.get("title") or (info or {}).get("display_name") or node["type"]
    return {"inputs": inputs, "class_type": node["type"], "_meta": {"title": title}}


def _wrapped(value: Any) -> Any:
    # A bare list is a link.
    return {"__value__": value} if isinstance(value, list) else value


def assign(workflow: Workflow, node_id: str, name: str, value: Any, info: Mapping[str, Any]) -> Workflow:
    """Return a workflow with another value of an input, in both of its formats.

    Where the value has no place in the UI-format graph (a link, an input inside a subgraph), that graph is left out:
    no saved image shows what did not make it.

    Args:
        workflow: with an API-format graph that has the node; it is not changed.
        info: of the node's class, as in /object_info.
    """
    node = workflow.prompt[node_id]
    prompt = {**workflow.prompt, node_id: {**node, "inputs": {**node["inputs"], name: value}}}
    ui_graph = workflow.ui_graph
    return Workflow(prompt, None if ui_graph is None else _with_value(ui_graph, node_id, name, value, info))


def _with_value(
    ui_graph: dict[str, Any], node_id: str, name: str, value: Any, info: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return a UI-format graph with another value of a widget; None where it has no such widget."""
    for index, node in enumerate(ui_graph["nodes"]):
        values = node.get("widgets_values") if isinstance(node, dict) else None
        if (
            isinstance(node, dict)
            and str(node.get("id")) == node_id
            and isinstance(values, list)
            and name in inputs_of(info)
        ):
            place = positions(values, info).get(name)
            if place is not None and not isinstance(value, list):
                changed = {**node, "widgets_values": [*values[:place], value, *values[place + 1 :]]}
                nodes = [*ui_graph["nodes"][:index], changed, *ui_graph["nodes"][index + 1 :]]
                return {**ui_graph, "nodes": nodes}
    return None
