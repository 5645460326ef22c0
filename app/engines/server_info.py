"""What a server says of its nodes, in the form that the checks and the conversion of this host read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...host.errors import closest, named
from ...host.graph.workflow import Prompt
from ...host.schema.node import ComfyNode
from ...host.schema.object_info import ObjectInfo

ANY = "*"
LOOSE_TYPES = ("COMFY_AUTOGROW", "COMFY_DYNAMIC", "COMFY_MATCHTYPE", "COMFY_MULTITYPED")
"""Beginnings of the types of inputs that grow with what is linked or chosen; only the server knows what they hold."""


class ServerInfo(ObjectInfo):
    """The answer of /object_info. Combo boxes of the older form, `[["a", "b"], {...}]`, become `["COMBO", {...}]`."""

    def __init__(self, answer: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(dict.fromkeys(answer, ComfyNode))
        self._answer = answer

    def accepts_all(self, node_id: str) -> bool:
        """Return False: a server does not say so, and ignores what it does not know."""
        return False

    def __getitem__(self, node_id: str) -> dict[str, Any]:
        """Return the entry of a class."""
        if node_id not in self._made:
            self._made[node_id] = _entry(self._answer[node_id])
        return self._made[node_id]


class LooseInfo(ObjectInfo):
    """The same for checks before a run: what only the server can judge is let through."""

    def __init__(self, info: ServerInfo) -> None:
        super().__init__(info.classes)
        self._info = info

    def accepts_all(self, node_id: str) -> bool:
        """Return what the server's entries say."""
        return self._info.accepts_all(node_id)

    def __getitem__(self, node_id: str) -> dict[str, Any]:
        """Return the entry of a class."""
        if node_id not in self._made:
            entry = self._info[node_id]
            kinds = {kind: {name: _loose(spec) for name, spec in group.items()} for kind, group in _groups(entry)}
            grown = {name: spec for name, spec in kinds.get("required", {}).items() if spec[0] == ANY}
            kinds["required"] = {name: spec for name, spec in kinds.get("required", {}).items() if name not in grown}
            kinds["optional"] = {**grown, **kinds.get("optional", {})}
            outputs = [ANY if kind.startswith(LOOSE_TYPES) else kind for kind in entry["output"]]
            self._made[node_id] = {**entry, "input": kinds, "output": outputs}
        return self._made[node_id]


def missing_nodes(prompt: Prompt, known: Iterable[str], server: str) -> list[str]:
    """Return a line for each node whose class a server does not have."""
    classes = set(known)
    return [
        f"{named(node_id, node['class_type'])}: {server} has no such node"
        f"{closest(node['class_type'], classes) or '; install the pack that has it there'}"
        for node_id, node in prompt.items()
        if node["class_type"] not in classes
    ]


def _entry(told: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {kind: {name: _spec(spec) for name, spec in group.items()} for kind, group in _groups(told)}
    outputs = [kind if isinstance(kind, str) else "COMBO" for kind in told.get("output") or []]
    return {
        **told,
        "input": {"required": {}, **kinds},
        "output": outputs,
        "output_name": told.get("output_name") or outputs,
        "output_is_list": told.get("output_is_list") or [False] * len(outputs),
        "output_node": bool(told.get("output_node")),
    }


def _groups(entry: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    groups = entry.get("input")
    return [(kind, group) for kind, group in (groups or {}).items() if isinstance(group, Mapping)]


def _spec(spec: Any) -> Any:
    if not isinstance(spec, list) or not spec:
        # What hidden inputs are called.
        return spec
    kind, options = spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    return ["COMBO", {**options, "options": kind}] if isinstance(kind, list) else [str(kind), options]


def _loose(spec: Any) -> Any:
    if not isinstance(spec, list) or not spec:
        return spec
    kind, options = spec
    uploads = any(key.endswith("_upload") and on for key, on in options.items())
    several = options.get("multiselect") or options.get("multi_select")
    remote = kind == "COMBO" and (options.get("remote") or not isinstance(options.get("options"), list))
    return [ANY, options] if uploads or several or remote or kind.startswith(LOOSE_TYPES) else spec
