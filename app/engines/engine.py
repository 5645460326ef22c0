"""What every engine does: say which nodes it has, check a prompt, run it, return the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from ...host.graph.workflow import Prompt
from ...host.schema.object_info import ObjectInfo, inputs_of

Progress = Callable[[str, float, float], None]
"""Called with a node's id, and how many of how many of its steps are done."""


@dataclass(frozen=True)
class Task:
    """What an engine runs.

    Attributes:
        prompt: a checked API-format graph.
        outputs: the ids of its output nodes.
        extra_pnginfo: what saved images carry beside the graph: `{"workflow": <UI-format>}`.
        files: the contents of input files, by the name that the graph has for each.
    """

    prompt: Prompt
    outputs: Sequence[str]
    extra_pnginfo: Mapping[str, Any] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """What a run made.

    Attributes:
        files: contents by relative path with forward slashes, in the order in which they were saved.
        told: by node id the texts and numbers that it showed or returned, lists by name.
        places: for each file the node that saved it, and the name of the list that it stands in, such as "images".
    """

    files: Mapping[str, bytes]
    told: Mapping[str, Mapping[str, Any]]
    places: Mapping[str, tuple[str, str]]


class Engine(Protocol):
    """Runs prompts, one at a time.

    Attributes:
        name: as it stands in reports, such as a server's address.
        is_local: it runs in this process.
    """

    name: str
    is_local: bool

    def object_info(self) -> ObjectInfo:
        """Return what is known of the nodes that it has, in the shape of /object_info."""
        ...

    def check(
        self, prompt: Prompt, files: Mapping[str, Path] | None = None, changed: Iterable[str] | None = None
    ) -> Prompt:
        """Return the prompt with converted values.

        Args:
            files: the input files that the run will have, by the name that the graph has for each.
            changed: the nodes to look at, where the others have been found right before; all by default.

        Raises:
            GraphError: something is wrong; one line for each thing that is.
        """
        ...

    def run(self, task: Task, progress: Progress | None = None) -> Made:
        """Run a checked prompt.

        Raises:
            NodeError: a node failed.
            EngineLost: the engine is gone.
            KeyboardInterrupt: the run was stopped.
        """
        ...

    def close(self) -> None:
        """Let go of connections and temporary files."""
        ...


def output_nodes(prompt: Prompt, object_info: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the ids of the nodes that save or show something."""
    return [node_id for node_id, node in prompt.items() if object_info[node["class_type"]]["output_node"]]


def input_files(prompt: Prompt, object_info: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return the places of a prompt that may name a file in the input folder: (node id, input, value).

    That is a combo box with a button for uploads, and every other combo box: some list files of that folder.
    """
    found = []
    for node_id, node in prompt.items():
        specs = inputs_of(object_info[node["class_type"]]) if node["class_type"] in object_info else {}
        for name, value in node["inputs"].items():
            if name in specs and isinstance(value, str) and value and specs[name].type == "COMBO":
                found.append((node_id, name, value))
    return found


def takes_uploads(info: Mapping[str, Any], name: str) -> bool:
    """Return whether an input of a class has a button for uploads, as Load Image has."""
    spec = inputs_of(info).get(name)
    return spec is not None and any(key.endswith("_upload") and bool(on) for key, on in spec.options.items())


def only_told(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what nodes told, without files: their paths are those of the engine."""
    told = {
        node_id: {kind: items for kind, items in found.items() if kind != "animated" and not _has_files(items)}
        for node_id, found in results.items()
    }
    return {node_id: found for node_id, found in told.items() if found}


def _has_files(items: Any) -> bool:
    return isinstance(items, list) and any(isinstance(item, Mapping) for item in items)


def safe_name(subfolder: str, filename: str) -> str | None:
    """Return the relative path of a file that an engine names; None where it would lead out of the folder."""
    path = PurePosixPath(subfolder.replace("\\", "/")) / filename
    parts = path.parts
    inside = bool(filename) and not path.is_absolute() and not any(part == ".." or ":" in part for part in parts)
    return str(path) if inside and "\0" not in str(path) and "\\" not in filename and "/" not in filename else None
