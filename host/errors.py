"""What the user is told: one line for each thing that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

LONGEST_VALUE = 80
LONGEST_LINE = 600
LONGEST_LIST = 12


class GraphError(Exception):
    """A workflow cannot be run. `lines` says everything that is wrong with it."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = [one_line(line) for line in lines]
        super().__init__("\n".join(self.lines))


class NodeError(Exception):
    """A node failed while it ran.

    Attributes:
        line: the node, and why it failed.
        reason: why it failed.
        bad_input: whether what it was given is at fault.
    """

    def __init__(self, node: str, reason: str, bad_input: bool) -> None:
        self.line = one_line(f"{node}: {reason}")
        self.reason = one_line(reason)
        self.bad_input = bad_input
        super().__init__(self.line)


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """Return `text` on one line that every terminal can print.

    Line breaks become spaces, other control characters are escaped.
    """
    joined = " ".join(text.split())
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)
    return safe if len(safe) <= longest else safe[: longest - 3] + "..."


def shown(value: Any) -> str:
    """Return a value as JSON, cut where it is long."""
    return one_line(json.dumps(value, ensure_ascii=False, default=str), LONGEST_VALUE)


def named(node_id: str, class_type: Any, input_name: str | None = None) -> str:
    """Return the beginning of a line: which node, of which class, and which of its inputs."""
    node = f"node {one_line(node_id, LONGEST_VALUE)} {one_line(str(class_type), LONGEST_VALUE)}"
    return node if input_name is None else f"{node}, input {one_line(input_name, LONGEST_VALUE)}"


def closest(name: Any, known: Iterable[Any]) -> str:
    """Return a hint at the known name that looks most like `name`, or nothing."""
    folded = {str(each).lower(): str(each) for each in known}
    found = get_close_matches(str(name)[:200].lower(), folded, n=1)
    return f'; did you mean "{folded[found[0]]}"?' if found else ""


def listed(values: Iterable[Any]) -> str:
    """Return values with commas between them, cut where there are many."""
    every = [shown(value) for value in values]
    more = f" and {len(every) - LONGEST_LIST} more" if len(every) > LONGEST_LIST else ""
    return ", ".join(every[:LONGEST_LIST]) + more
