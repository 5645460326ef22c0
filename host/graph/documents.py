"""What a JSON document holds: a graph in either format, bare or inside what programs wrap around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...files.reading import parse_json
from ..errors import GraphError, shown

WRAPPERS = ("prompt", "output", "workflow", "extra_data", "extra_pnginfo", "input")
"""The keys under which programs put a graph: bodies of POST /prompt, what the interface's graphToPrompt gives, and the
bodies of services that run workflows."""

LONGEST_TEXT = 2**26
"""Bytes of a workflow as JSON."""

MOST_WRAPPERS = 6
RUN_LENGTH = 4
"""A run in ComfyUI's history or queue: its number, its id, the graph, and what came with it."""


@dataclass
class Workflow:
    """What a file holds: an API-format graph, a UI-format graph, or both of the same workflow.

    Attributes:
        prompt: the API-format graph.
        ui_graph: the UI-format graph, which saved images carry beside it.
    """

    prompt: Any = None
    ui_graph: dict[str, Any] | None = None

    @property
    def extra_pnginfo(self) -> dict[str, Any] | None:
        """What saved images carry beside the API-format graph."""
        return {"workflow": self.ui_graph} if self.ui_graph else None


def parse(content: str | bytes, name: str) -> Any:
    """Read JSON.

    Raises:
        GraphError: it is none.
    """
    if len(content) > LONGEST_TEXT:
        raise GraphError([f"{name}: more than {LONGEST_TEXT} bytes of JSON; expected a workflow"])
    try:
        return parse_json(content)
    except UnicodeDecodeError:
        line = f"{name}: not text in UTF-8; expected a workflow file: .json in UTF-8, or an image that ComfyUI saved"
        raise GraphError([line]) from None
    except ValueError as error:
        raise GraphError(
            [f"{name}: not JSON ({error}); expected a workflow file: .json, or an image that ComfyUI saved"]
        ) from error


def from_document(document: Any, name: str = "the workflow") -> Workflow:
    """Tell which of the two formats a JSON document has, and unwrap it.

    Raises:
        GraphError: it holds no graph, or several runs.
    """
    if isinstance(document, dict) and document:
        return _found(document, name, MOST_WRAPPERS) or Workflow(prompt=document)
    raise GraphError([f"{name}: found {shown(document)}; expected a workflow that ComfyUI saved or exported (API)"])


def _found(document: Any, name: str, depth: int) -> Workflow | None:
    if isinstance(document, str) and document.lstrip().startswith("{"):
        with suppress(GraphError):
            document = parse(document, name)
    if _is_run(document):
        document = {"prompt": document[2], "extra_data": document[3]}
    if not isinstance(document, dict) or not document or not depth:
        return None
    if isinstance(document.get("nodes"), list):
        if "edges" in document and "links" not in document:
            raise GraphError([f"{name}: nodes and edges of another program; expected a workflow that ComfyUI saved"])
        return Workflow(ui_graph=document)
    if any(isinstance(node, dict) and "class_type" in node for node in document.values()):
        return Workflow(prompt=document)
    merged = Workflow()
    for found in (_found(document[key], name, depth - 1) for key in WRAPPERS if key in document):
        if found is not None:
            merged.prompt = found.prompt if merged.prompt is None else merged.prompt
            merged.ui_graph = merged.ui_graph or found.ui_graph
    if merged.prompt is not None or merged.ui_graph is not None:
        return merged
    return _only_run(document, name, depth)


def _only_run(document: dict[str, Any], name: str, depth: int) -> Workflow | None:
    """Return the graph of a history or queue with one run."""
    runs = list(_runs(document))
    if len(runs) > 1:
        raise GraphError([f"{name}: found {len(runs)} runs; expected one workflow; take one of them out"])
    return _found(runs[0], name, depth - 1) if runs else None


def _runs(document: dict[str, Any]) -> Iterator[Any]:
    for value in document.values():
        if isinstance(value, dict) and _is_run(value.get("prompt")):
            yield value["prompt"]
        elif isinstance(value, list):
            yield from (each for each in value if _is_run(each))


def _is_run(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= RUN_LENGTH
        and isinstance(value[2], dict)
        and isinstance(value[3], dict)
        and isinstance(value[1], str)
    )
