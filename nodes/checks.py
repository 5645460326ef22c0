"""Check typed-in settings before a run, for a node's `validate_inputs`.

A host leaves the limits and choices of an input to the node as soon as `validate_inputs` names it, and passes only
typed-in values: a linked one is None, and one that a prompt leaves out has its default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ..contract import io

Rule = tuple[Callable[..., object], Sequence[str]]
"""A function that raises ValueError, and the names of the inputs that it takes."""
TYPES = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}
ABSENT: Any = object()
"""Default of an input in `validate_inputs` that is not connected; a connected one is None."""


def verdict(node: type[io.ComfyNode], given: Mapping[str, Any], *rules: Rule) -> bool | str:
    """Check each input's limits, then the rules; a rule with a linked input waits for the run.

    Args:
        node: class that declares the inputs.
        given: values by name, None where one is linked.

    Returns:
        True, or one line with everything that is wrong.
    """
    declared: dict[str, Any] = {each.id: each for each in node.define_schema().inputs}
    # The host has already refused what cannot be converted to the input's type.
    known = {name: value for name, value in given.items() if _is_of_type(declared[name], value)}
    wrong = [line for name, value in known.items() if (line := _beyond_limits(declared[name], value))]
    ready = [(check, names) for check, names in rules if known.keys() >= set(names) and not wrong]
    wrong += [line for check, names in ready if (line := _broken(check, [known[name] for name in names]))]
    return "; ".join(dict.fromkeys(wrong)) or True


def _is_of_type(entry: Any, value: Any) -> bool:
    return value is not None and isinstance(value, TYPES.get(entry.get_io_type(), object))


def _broken(check: Callable[..., object], values: Sequence[Any]) -> str:
    try:
        check(*values)
    except ValueError as error:
        return str(error)
    return ""


def _beyond_limits(entry: Any, value: Any) -> str:
    if entry.get_io_type() == "COMBO":
        return "" if value in entry.options else f"{entry.id}: found {value!r:.80}; {_choices(entry.options, value)}"
    low, high = getattr(entry, "min", None), getattr(entry, "max", None)
    # Written so that NaN, which compares false with everything, is out of range.
    if (low is None or value >= low) and (high is None or value <= high):
        return ""
    return f"{entry.id}: found {value}; expected {low} to {high}, set a value in between"


def _choices(options: Sequence[Any], value: Any) -> str:
    folded = {str(option).lower(): str(option) for option in options}
    near = get_close_matches(str(value)[:200].lower(), folded, n=1)
    listed = ", ".join(map(str, options[:20])) + " and others" * (len(options) > 20)
    return f"did you mean {folded[near[0]]!r}?" if near else f"expected one of: {listed}; choose one"
