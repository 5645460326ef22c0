"""What a run tells: files, texts and numbers of every node, as JSON holds them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..folder_paths import get_directory_by_type

if TYPE_CHECKING:
    from .execution import Run

FILE = {"filename", "subfolder", "type"}

Results = dict[str, dict[str, list[Any]]]


def results(run: Run) -> Results:
    """Return what each node showed, and the texts, numbers and truth values that it gave, used or not.

    Returns:
        By node id: lists by kind of what is shown ("images", "text", ...), files as `{"path": ...}`; then lists by the
        name of an output. Numbers that JSON has not (infinite, or none) are None.
    """
    told: Results = {}
    for node_id, entry in run.entries.items():
        names = run.object_info[run.prompt[node_id]["class_type"]]["output_name"]
        found = {kind: [plain(item) for item in items] for kind, items in entry.ui.items()}
        for name, values in zip(names, entry.values, strict=True):
            if values and all(is_plain(value) for value in values):
                listed = [plain(value) for value in values]
                # A node may show a number under the name of its output.
                if listed != found.get(name):
                    found[_free(name, found)] = listed
        if found:
            told[node_id] = found
    return told


def saved(run: Run) -> list[str]:
    """Return the files in the output folder; previews are not kept."""
    shown = [item for ui in run.ui.values() for items in ui.values() for item in items]
    return [plain(item)["path"] for item in shown if _is_file(item) and item["type"] == "output"]


def is_plain(value: Any) -> bool:
    """Return whether a value is text, a number or a truth value, of Python or numpy."""
    return isinstance(value, (str, int, float)) or (
        type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0
    )


def plain(value: Any) -> Any:
    """Return a value as JSON holds it; files become their paths."""
    if _is_file(value):
        return {"path": os.path.join(get_directory_by_type(value["type"]) or "", value["subfolder"], value["filename"])}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    scalar: Any = value
    return plain(scalar.item()) if is_plain(value) else str(value)


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """Return a name for an output that nothing else has: its own, or with a number behind it."""
    names = [name, *(f"{name} {number}" for number in range(2, len(taken) + 2))]
    return next(each for each in names if each not in taken)


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() >= FILE
