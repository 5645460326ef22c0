"""The values typed into a node of a UI-format file, and what ComfyUI's interface sends of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..schema.object_info import InputInfo, inputs_of, nested_inputs
from .dynamic_prompts import dynamic_prompt
from .widget_slots import NOT_SAVED, control_count, positions

EMPTY = {
    "INT": 0,
    "FLOAT": 0,
    "STRING": "",
    "BOOLEAN": False,
    "COLOR": "#000000",
    "IMAGECOMPARE": ["", ""],
}
MADE_BY_SCRIPT = {"CustomCombo": {"index": 1}}
"""Inputs that a script of the interface adds to a class, and where their values stand in a file."""

OLD_SAMPLER_PREFIX = "sample_"
"""Samplers had this before their names once; the interface takes it away."""

OLD_SAMPLER_NODES = {"KSampler", "KSamplerAdvanced"}


def has_control(widget: InputInfo) -> bool:
    """Return whether the interface puts "control after generate" behind the widget."""
    return control_count(widget) > 0


def stored_values(node: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a node's widgets by name, as they are typed in; what the file leaves out has its default."""
    given = _given(node, info)
    values: dict[str, Any] = {}
    pending = [each for each in reversed(inputs_of(info).values()) if each.is_widget]
    while pending:
        widget = pending.pop()
        value = given.get(widget.name)
        if value is None or widget.widget_type in NOT_SAVED:
            value = default(widget)
        if value is not None:
            values[widget.name] = _renamed(node, widget, value)
        if widget.is_dynamic:
            pending += [each for each in reversed(nested_inputs(widget, value)) if each.is_widget]
    saved = node.get("widgets_values")
    for name, place in MADE_BY_SCRIPT.get(str(node.get("type")), {}).items():
        if isinstance(saved, list) and len(saved) > place and isinstance(saved[place], int):
            values[name] = saved[place]
    return values


def sent(name: str, value: Any, info: Mapping[str, Any]) -> Any:
    """Return what a graph holds of a value that stands on the node itself: one choice of a dynamic prompt."""
    widget = inputs_of(info).get(name)
    is_prompt = isinstance(value, str) and widget is not None and widget.options.get("dynamicPrompts")
    return dynamic_prompt(value) if is_prompt else value


def default(widget: InputInfo) -> Any:
    """Return what a widget shows before anybody typed."""
    if "default" in widget.options:
        return widget.options["default"]
    options = widget.options.get("options")
    if isinstance(options, (list, tuple)) and options:
        return options[0].get("key") if widget.is_dynamic and isinstance(options[0], dict) else options[0]
    return EMPTY.get(widget.widget_type)


def _renamed(node: Mapping[str, Any], widget: InputInfo, value: Any) -> Any:
    if node.get("type") in OLD_SAMPLER_NODES and widget.name == "sampler_name" and isinstance(value, str):
        return value.removeprefix(OLD_SAMPLER_PREFIX)
    return value


def _given(node: Mapping[str, Any], info: Mapping[str, Any]) -> Mapping[str, Any]:
    values = node.get("widgets_values")
    if isinstance(values, list):
        return {name: values[place] for name, place in positions(values, info).items()}
    by_name = values if isinstance(values, dict) else node.get("widgets_values_named")
    return by_name if isinstance(by_name, dict) else {}
