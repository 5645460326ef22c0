"""What became of the named values in the objects of a list, read off the graph as that of parameters is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str, ...]


@dataclass(frozen=True)
class Keys:
    """Marks a list of objects by the names in them; names in inner objects have dots.

    Attributes:
        known: values of each that make a difference where it acts; all of them where it takes a few texts.
        meaningless: names that are about the service, with the reason.
        idle: of a name that may do nothing, the name beside which that is so ("" is any), and why.
    """

    known: Mapping[str, tuple[Any, ...]]
    meaningless: Mapping[str, str] = field(default_factory=dict)
    idle: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def why_idle(self, name: str, item: Mapping[str, Any]) -> str:
        """Say why a name does nothing in an object; "" where that is not known."""
        beside, reason = self.idle.get(name, ("", ""))
        return reason if not beside or item.get(beside) is not None else ""

    def strange(self, name: str, value: Any) -> bool:
        """Whether a value is a text beside those of its list."""
        texts = [each for each in self.known[name] if isinstance(each, str)]
        return bool(texts) and value not in texts


def leaves(value: Mapping[str, Any], before: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Return the paths of the values in an object and the objects in it, without those that are null."""
    for name, each in value.items():
        if isinstance(each, dict):
            yield from leaves(each, (*before, name))
        elif each is not None:
            yield (*before, name), each


def without(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return an object without the value at a path."""
    first, *rest = path
    if not rest:
        return {name: each for name, each in value.items() if name != first}
    return {**value, first: without(value[first], tuple(rest))}


def with_value(value: Mapping[str, Any], path: Path, new: Any) -> dict[str, Any]:
    """Return an object with another value at a path."""
    first, *rest = path
    return {**value, first: with_value(value[first], tuple(rest), new) if rest else new}
