"""What is known of the node classes, in the shape of ComfyUI's /object_info."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .dynamic import AUTOGROW, DYNAMIC_COMBO, MATCH
from .node import ComfyNode, Schema

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
OTHER_WIDGET_TYPES = {
    "BOUNDING_BOX",
    "BOUNDING_BOXES",
    "CHART",
    "COLOR",
    "COLORS",
    "COMPOSITOR",
    "CURVE",
    "GALLERIA",
    "IMAGECOMPARE",
    "MARKDOWN",
    "PAINTER",
    "RANGE",
    "TEXTAREA",
    "VIDEO_EDIT",
    DYNAMIC_COMBO,
}
"""Widgets of ComfyUI's interface that no node here has; where they stand in a file is known all the same."""


class ObjectInfo(Mapping[str, dict[str, Any]]):
    """The entries of /object_info by node id, each made when it is first asked for."""

    def __init__(self, classes: Mapping[str, type[ComfyNode]]) -> None:
        self.classes = classes
        self._made: dict[str, dict[str, Any]] = {}
        self._schemas: dict[str, Schema] = {}

    def __getitem__(self, node_id: str) -> dict[str, Any]:
        if node_id not in self._made:
            self._made[node_id] = self.schema(node_id).get_v1_info(self.classes[node_id])
        return self._made[node_id]

    def schema(self, node_id: str) -> Schema:
        """Return a class's declaration, made once: some look through the folders of models."""
        if node_id not in self._schemas:
            self._schemas[node_id] = self.classes[node_id].GET_SCHEMA()
        return self._schemas[node_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def accepts_all(self, node_id: str) -> bool:
        """Return whether a class takes inputs that it does not declare."""
        return self.schema(node_id).accept_all_inputs


@dataclass(frozen=True)
class InputInfo:
    """One input of a class."""

    name: str
    type: str
    required: bool
    options: Mapping[str, Any]

    @property
    def widget_type(self) -> str:
        """The kind of widget, which an input of several types names on its own."""
        return str(self.options.get("widgetType") or self.type)

    @property
    def is_widget(self) -> bool:
        """Whether a value can be typed in."""
        return self.widget_type in WIDGET_TYPES | OTHER_WIDGET_TYPES and not self.options.get("forceInput")

    @property
    def is_dynamic(self) -> bool:
        """Whether other widgets follow, depending on what is chosen."""
        return self.widget_type == DYNAMIC_COMBO

    @property
    def takes_values(self) -> bool:
        """Whether a graph may hold a value instead of a link."""
        types = {part.strip() for part in self.type.split(",")} | {self.widget_type}
        return bool(types & (WIDGET_TYPES | OTHER_WIDGET_TYPES | {"*"}))


def inputs_of(info: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> dict[str, InputInfo]:
    """Return the inputs of a class by name, in the order of the interface: the required ones first.

    Args:
        info: the class's entry in /object_info.
        given: values of a node, where its dynamic inputs are to be unfolded into those that it has with them.
    """
    found = _read_inputs(info["input"], "")
    return found if given is None else _unfolded(found.values(), given)


def nested_inputs(widget: InputInfo, chosen: Any) -> list[InputInfo]:
    """Return the inputs that a dynamic combo box shows for a choice, each named after the box: `box.input`."""
    for option in widget.options.get("options") or []:
        if isinstance(option, dict) and option.get("key") == chosen:
            return list(_read_inputs(option.get("inputs") or {}, f"{widget.name}.").values())
    return []


def grown_inputs(row: InputInfo) -> list[InputInfo]:
    """Return all inputs that a row may have, each named after it: `row.input`."""
    template = row.options["template"]
    names = template.get("names") or [f"{template['prefix']}{index}" for index in range(template["max"])]
    (inner,) = _read_inputs(template["input"], "").values()
    return [
        replace(inner, name=f"{row.name}.{name}", required=inner.required and index < template["min"])
        for index, name in enumerate(names)
    ]


def nest(info: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's arguments: those of a dynamic input as one dictionary, which holds a choice by its own name."""
    dynamic = {each.name: each for each in inputs_of(info).values() if each.widget_type in (AUTOGROW, DYNAMIC_COMBO)}
    if not dynamic:
        return dict(values)
    # Nodes that take lists get the choice as a list of one.
    chosen = {name: value[0] if isinstance(value, list) and value else value for name, value in values.items()}
    specs = inputs_of(info, chosen)
    made: dict[str, Any] = {name: {} for name, each in dynamic.items() if each.widget_type == AUTOGROW}
    for name, value in values.items():
        *path, last = name.split(".") if name in specs else [name]
        place = made
        for part in path:
            place = place.setdefault(part, {})
        if name in specs and specs[name].is_dynamic:
            place.setdefault(last, {})[last] = value
        else:
            place[last] = value
    return made


def _unfolded(inputs: Iterable[InputInfo], given: Mapping[str, Any]) -> dict[str, InputInfo]:
    found: dict[str, InputInfo] = {}
    for each in inputs:
        if each.type == AUTOGROW:
            found |= {inner.name: inner for inner in grown_inputs(each)}
            continue
        found[each.name] = each
        if each.is_dynamic:
            found |= _unfolded(nested_inputs(each, given.get(each.name)), given)
    return found


def _read_inputs(groups: Mapping[str, Any], prefix: str) -> dict[str, InputInfo]:
    return {
        f"{prefix}{name}": _input(f"{prefix}{name}", kind[0], group == "required", kind[1] if len(kind) > 1 else {})
        for group in ("required", "optional")
        for name, kind in groups.get(group, {}).items()
    }


def _input(name: str, kind: str, required: bool, options: Mapping[str, Any]) -> InputInfo:
    kind = options["template"]["allowed_types"] if kind == MATCH else kind
    return InputInfo(name, kind, required, options)


def accepts(wanted: str, received: str) -> bool:
    """Return whether an input takes an output: the types "A,B" meet where they share one, and "*" meets all."""
    if received == MATCH:
        return True
    one, other = ({part.strip() for part in union.split(",")} for union in (wanted, received))
    return "*" in one | other or bool(one & other)
