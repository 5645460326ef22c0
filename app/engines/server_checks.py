"""What is wrong with a prompt on a server: before it is posted, when it is refused, after it has run."""

from __future__ import annotations

from typing import Any

from ...host.errors import NodeError, named, shown
from ...host.graph.workflow import Prompt
from ...host.schema.object_info import ObjectInfo
from .engine import input_files, takes_uploads
from .server_info import LooseInfo

BAD_INPUT_ERRORS = {"ValueError", "FileNotFoundError"}
"""Exceptions by which a node says that its inputs are at fault."""


def without_files(prompt: Prompt, provided: set[str], info: LooseInfo) -> Prompt:
    """Return a prompt whose combo boxes have their first choice in place of a file that is uploaded later."""
    places = [(node, name) for node, name, value in input_files(prompt, info) if value in provided]
    changed = dict(prompt)
    for node_id, name in places:
        node = changed[node_id]
        spec = info[node["class_type"]]["input"]
        options = next(group[name][1].get("options") for group in spec.values() if name in group)
        changed[node_id] = {**node, "inputs": {**node["inputs"], name: (options or [""])[0]}}
    return changed


def with_files(checked: Prompt, prompt: Prompt, provided: set[str]) -> Prompt:
    """Return a checked prompt with the files that `without_files` left out."""
    restored = {}
    for node_id, node in checked.items():
        texts = {name: each for name, each in prompt[node_id]["inputs"].items() if isinstance(each, str)}
        files = {name: each for name, each in texts.items() if each in provided}
        restored[node_id] = {**node, "inputs": {**node["inputs"], **files}}
    return restored


def absent_files(prompt: Prompt, provided: set[str], info: ObjectInfo, server: str) -> list[str]:
    """Return a line for each input file that is neither here nor on the server."""
    lines = []
    for node_id, name, value in input_files(prompt, info):
        entry = info[prompt[node_id]["class_type"]]
        options = next(group[name][1].get("options") or [] for group in entry["input"].values() if name in group)
        if takes_uploads(entry, name) and value not in provided and value not in options and not value.endswith("]"):
            place = named(node_id, prompt[node_id]["class_type"], name)
            lines.append(f"{place}: found {shown(value)}; there is no such file here or on {server}; name another one")
    return lines


def refusals(answer: Any, prompt: Prompt, server: str) -> list[str]:
    """Return what a server finds wrong with a prompt, a line for each thing."""
    answer = answer if isinstance(answer, dict) else {}
    lines = []
    wrong: dict[str, dict[str, Any]] = answer.get("node_errors") or {}
    for node_id, found in wrong.items():
        for error in found.get("errors") or []:
            name = (error.get("extra_info") or {}).get("input_name")
            place = named(str(node_id), prompt.get(str(node_id), found).get("class_type"), name)
            lines.append(f"{place}: {error.get('message')}: {error.get('details')} ({server})")
    error = answer.get("error") or {}
    told = error.get("message") if isinstance(error, dict) else error
    return lines or [f"{server}: refused the workflow: {told or shown(answer)}"]


def succeeded(entry: dict[str, Any], prompt: Prompt, server: str) -> dict[str, Any]:
    """Return the history of a prompt that ran; NodeError says what failed."""
    status = entry.get("status") or {}
    if status.get("status_str", "success") == "success":
        return entry
    for message in status.get("messages") or []:
        if isinstance(message, list) and len(message) == 2 and message[0] == "execution_error":
            told = message[1]
            place = named(str(told.get("node_id")), told.get("node_type"))
            kind = str(told.get("exception_type")).rpartition(".")[2]
            raise NodeError(place, f"{told.get('exception_message')} ({server})", kind in BAD_INPUT_ERRORS)
    raise NodeError(server, "the prompt was stopped there", False)
