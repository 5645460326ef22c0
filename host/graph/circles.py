"""Links that run in a circle, which no order of the nodes can satisfy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .mapping import is_link

Circle = tuple[str, ...]
"""The ids along a circle of links, the first one repeated at the end."""


def linked_nodes(node: Mapping[str, Any]) -> Iterator[str]:
    """Return the ids that a node's links name."""
    return (value[0] for value in node["inputs"].values() if is_link(value))


def find_circles(prompt: Mapping[str, Mapping[str, Any]], outputs: Sequence[str]) -> list[Circle]:
    """Return a circle for each output that depends on one, each circle once."""
    found: dict[frozenset[str], Circle] = {}
    sound: set[str] = set()
    for output in outputs:
        circle = _find_circle(prompt, output, sound)
        if circle:
            found.setdefault(frozenset(circle), circle)
    return list(found.values())


def _find_circle(prompt: Mapping[str, Mapping[str, Any]], output: str, sound: set[str]) -> Circle:
    """Return a circle that an output depends on, or nothing; `sound` grows by the nodes that depend on none."""
    if output in sound:
        return ()
    path = {output: linked_nodes(prompt[output])}
    while path:
        source = next(path[next(reversed(path))], None)
        if source is None:
            sound.add(path.popitem()[0])
        elif source in path:
            along = list(path)
            return (*along[along.index(source) :], source)
        elif source in prompt and source not in sound:
            path[source] = linked_nodes(prompt[source])
    return ()
