"""Where the values of a node's widgets stand in a UI-format file: ComfyUI's interface saves them in order, unnamed.

Between the values stand others that no input has: how a seed changes after a run, the label of an upload button, the
numbers beside a bounding box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..schema.object_info import WIDGET_TYPES, InputInfo, inputs_of, nested_inputs

CONTROL_VALUES = {"fixed", "increment", "decrement", "randomize", "increment-wrap"}
SEED_NAMES = {"seed", "noise_seed"}
UPLOAD_VALUES = {"image", "audio", "video", "file"}
NUMBERS = {"INT", "FLOAT"}
SAVED_BEHIND = {"BOUNDING_BOX": 4}
"""How many values of its own a widget saves behind its value; an image comparison saves none, not even its value."""

NOT_SAVED = {"IMAGECOMPARE"}


@dataclass(frozen=True)
class Place:
    """One value of a file: of a widget, or the control of the widget before it."""

    widget: InputInfo
    control: bool = False


def control_count(widget: InputInfo) -> int:
    """Return how many values stand behind a widget's that say how it changes after a run.

    A combo box has a filter, too.
    """
    asked = widget.options.get("control_after_generate")
    if widget.widget_type == "INT":
        return int(bool((widget.name in SEED_NAMES) if asked is None else asked))
    return {"FLOAT": 1, "COMBO": 2}.get(widget.widget_type, 0) if asked else 0


def positions(values: Sequence[Any], info: Mapping[str, Any]) -> dict[str, int]:
    """Return where each widget's value stands in `widgets_values`.

    The interface goes by the order alone. Files from before a seed had a control lack it, so where values are missing,
    the reading that suits the types of the widgets decides.
    """
    dropped = _dropped(values, info)
    kept = [place for place in range(len(values)) if place not in dropped]
    found = _positions([values[place] for place in kept], info)
    return {name: kept[place] for name, place in found.items()}


def _dropped(values: Sequence[Any], info: Mapping[str, Any]) -> set[int]:
    """Return places of inputs that were widgets once and are forced to be links now.

    Told by the number of values alone.
    """
    forced: list[bool] = []
    for each in inputs_of(info).values():
        if each.is_widget or each.options.get("forceInput"):
            forced.append(bool(each.options.get("forceInput")))
            forced += [False] if each.options.get("control_after_generate") else []
    return {place for place, is_forced in enumerate(forced) if is_forced} if len(forced) == len(values) else set()


def _positions(values: Sequence[Any], info: Mapping[str, Any]) -> dict[str, int]:
    widgets = [each for each in inputs_of(info).values() if each.is_widget]
    controlled = _layout(widgets, values, controls=True)
    if len(controlled) <= len(values):
        return _named(controlled)
    bare = _layout(widgets, values, controls=False)
    # Fewest misfits first, then the one that uses up the values exactly.
    best = min((controlled, bare), key=lambda layout: (_misfits(layout, values), len(layout) != len(values)))
    return {name: place for name, place in _named(best).items() if place < len(values)}


def _named(layout: Sequence[Place | None]) -> dict[str, int]:
    return {each.widget.name: place for place, each in enumerate(layout) if each is not None and not each.control}


def _misfits(layout: Sequence[Place | None], values: Sequence[Any]) -> int:
    pairs = zip(layout, values, strict=False)
    return sum(each is not None and not each.control and not fits(each.widget, value) for each, value in pairs)


def fits(widget: InputInfo, value: Any) -> bool:
    """Return whether a value may be a widget's; null may be any."""
    kind = widget.widget_type
    if value is None or kind not in WIDGET_TYPES:
        return True
    if kind in NUMBERS:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "COMBO":
        return isinstance(value, str) or value in (widget.options.get("options") or [])
    return isinstance(value, bool if kind == "BOOLEAN" else str)


def _layout(widgets: Sequence[InputInfo], values: Sequence[Any], controls: bool) -> list[Place | None]:
    """Return what stands at each place.

    Without `controls`, only what cannot be the next widget's value is taken for one.
    """
    layout: list[Place | None] = []
    uploads = False
    for widget, following in _unfolded(widgets, layout, values):
        if uploads and not widget.required:
            uploads = False
            layout += [None] if _at(values, layout) in UPLOAD_VALUES else []
        if widget.widget_type not in NOT_SAVED:
            layout.append(Place(widget))
        layout += [None] * SAVED_BEHIND.get(widget.widget_type, 0)
        for _ in range(control_count(widget)):
            if controls or _is_control(_at(values, layout), following):
                layout.append(Place(widget, control=True))
        uploads |= any(widget.options.get(f"{kind}_upload") for kind in UPLOAD_VALUES)
    return layout


def _unfolded(
    widgets: Sequence[InputInfo], layout: list[Place | None], values: Sequence[Any]
) -> Iterator[tuple[InputInfo, InputInfo | None]]:
    """Yield widgets in order, each with the one behind it; those of a dynamic combo box follow what is chosen in it."""
    pending = list(reversed(widgets))
    while pending:
        widget = pending.pop()
        place = len(layout)
        yield widget, pending[-1] if pending else None
        if widget.is_dynamic:
            chosen = values[place] if place < len(values) else None
            pending += reversed([each for each in nested_inputs(widget, chosen) if each.is_widget])


def _at(values: Sequence[Any], layout: Sequence[Any]) -> Any:
    value = values[len(layout)] if len(layout) < len(values) else None
    return value if isinstance(value, (str, bool, int, float)) else None


def _is_control(value: Any, following: InputInfo | None) -> bool:
    if isinstance(value, str) and value in CONTROL_VALUES:
        return True
    return isinstance(value, bool) or (value is not None and following is not None and not fits(following, value))
