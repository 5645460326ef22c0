"""The values typed into a node of a UI-format file. ComfyUI's interface saves them in order, without their names."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .object_info import InputInfo, inputs_of

CONTROL_VALUES = {"fixed", "increment", "decrement", "randomize"}
SEED_NAMES = {"seed", "noise_seed"}
UPLOAD_VALUES = {"image", "audio", "video", "file"}


def has_control(widget: InputInfo) -> bool:
    """Whether the interface puts "control after generate" behind the widget."""
    return bool(widget.options.get("control_after_generate", widget.type == "INT" and widget.name in SEED_NAMES))


def positions(values: Sequence[Any], info: Mapping[str, Any]) -> dict[str, int]:
    """Where each widget's value stands in `widgets_values`.

    Two things stand between the values and are left out: the word behind a seed that says how it changes, and the
    label of an upload button, which follows the required widgets.
    """
    found: dict[str, int] = {}
    place = 0
    uploads = False
    widgets = [each for each in inputs_of(info).values() if each.is_widget]
    for widget in widgets:
        if uploads and not widget.required:
            place, uploads = _after(values, place, UPLOAD_VALUES), False
        found[widget.name] = place
        place += 1
        if has_control(widget):
            place = _after(values, place, CONTROL_VALUES)
        uploads |= any(widget.options.get(f"{kind}_upload") for kind in UPLOAD_VALUES)
    return {name: place for name, place in found.items() if place < len(values)}


def _after(values: Sequence[Any], place: int, words: set[str]) -> int:
    return place + (place < len(values) and isinstance(values[place], str) and values[place] in words)


def widget_values(node: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a node's widgets by name; what the file leaves out has its default."""
    widgets = {name: each for name, each in inputs_of(info).items() if each.is_widget}
    given = {name: value for name, value in _given(node, info).items() if name in widgets and value is not None}
    values = {}
    for name, widget in widgets.items():
        value = given.get(name, _default(widget))
        if isinstance(value, str) and widget.options.get("dynamicPrompts"):
            value = dynamic_prompt(value)
        if name in given or value is not None:
            values[name] = value
    return values


def _given(node: Mapping[str, Any], info: Mapping[str, Any]) -> Mapping[str, Any]:
    values = node.get("widgets_values")
    if isinstance(values, list):
        return {name: values[place] for name, place in positions(values, info).items()}
    by_name = values if isinstance(values, dict) else node.get("widgets_values_named")
    return by_name if isinstance(by_name, dict) else {}


def _default(widget: InputInfo) -> Any:
    options = widget.options.get("options")
    return widget.options.get("default", options[0] if options else None)


def dynamic_prompt(text: str) -> str:
    """Leave out comments (`/* */` and `//`) and choose one of each `{a|b}`; a backslash keeps `{`, `}` and `|`.

    ComfyUI's interface chooses anew for every run; here one text always gives one choice, so that runs can be repeated.
    """
    choice = random.Random(text)
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    innermost = re.compile(r"(?<!\\)\{((?:\\.|[^{}\\])*)\}", re.DOTALL)
    while found := innermost.search(text):
        options = re.split(r"(?<!\\)\|", found[1])
        text = text[: found.start()] + choice.choice(options) + text[found.end() :]
    return re.sub(r"\\([{}|])", r"\1", text)
