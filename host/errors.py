"""What the user is told: one line for each thing that is wrong."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

LONGEST_VALUE = 80
LONGEST_LINE = 600
LONGEST_LIST = 12
MOST_LINES = 20
"""Errors that are shown of a workflow."""

MOST_COMPARED = 2000
"""Known names that a wrong one is compared with."""


class GraphError(Exception):
    """A workflow cannot be run. `lines` says everything that is wrong with it; the exception's text is the first 20."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = [one_line(line) for line in lines]
        super().__init__("\n".join(first(self.lines)))


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


class TooLargeError(MemoryError):
    """A device ran out of memory; the text says what would fit."""


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """Return `text` on one line that every terminal can print.

    Line breaks become spaces, other control characters are escaped.
    """
    safe = escaped(" ".join(text.split()))
    return safe if len(safe) <= longest else safe[: longest - 3] + "..."


def escaped(text: str) -> str:
    """Return text whose line breaks, control characters and bytes that are no text are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first(lines: Sequence[str]) -> list[str]:
    """Return as many lines as are shown, the last of which counts the others."""
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], f"and {more:,} more"] if more > 0 else list(lines)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Report whatever a document makes its reader raise as one line about the document.

    Raises:
        GraphError: the reader failed.
    """
    try:
        yield
    except GraphError:
        raise
    except RecursionError as error:
        raise GraphError([f"{name}: nested too deeply; expected a workflow that ComfyUI saved or exported"]) from error
    except MemoryError as error:
        raise GraphError([f"{name}: too large for this machine's memory; make it smaller"]) from error
    except Exception as error:
        expected = "expected a workflow that ComfyUI saved or exported; --debug shows where reading it failed"
        raise GraphError([f"{name}: not what its format says; {expected}"]) from error


def without_secrets(url: str) -> str:
    """Return a URL, or what was meant to be one, without user, password, query and fragment."""
    scheme = re.match(r"\w+://|", url)
    begun = scheme[0] if scheme else ""
    return re.split("[?#]", begun + url[len(begun) :].rpartition("@")[2], maxsplit=1)[0]


def shown(value: Any) -> str:
    """Return a value as JSON, cut where it is long."""
    return one_line(json.dumps(value, ensure_ascii=False, default=str), LONGEST_VALUE)


def named(node_id: str, class_type: Any, input_name: str | None = None) -> str:
    """Return the beginning of a line: which node, of which class, and which of its inputs."""
    node = f"node {one_line(node_id, LONGEST_VALUE)} {one_line(str(class_type), LONGEST_VALUE)}"
    return node if input_name is None else f"{node}, input {one_line(input_name, LONGEST_VALUE)}"


def closest(name: Any, known: Iterable[Any]) -> str:
    """Return a hint at the known name that looks most like `name`, or nothing."""
    folded = {str(each).lower(): str(each) for each in itertools.islice(known, MOST_COMPARED)}
    found = get_close_matches(str(name)[:200].lower(), folded, n=1)
    return f'; did you mean "{folded[found[0]]}"?' if found else ""


class Hints:
    """Hints at known names: looked for once for each wrong name, and for no more names than are shown."""

    def __init__(self) -> None:
        # With what each name was compared, so that no other collection takes its identity.
        self._found: dict[tuple[str, int], tuple[Collection[Any], str]] = {}

    def closest(self, name: Any, known: Collection[Any]) -> str:
        """Return what `closest` returns; nothing after the first names."""
        key = (str(name), id(known))
        if key not in self._found:
            self._found[key] = (known, closest(name, known) if len(self._found) < MOST_LINES else "")
        return self._found[key][1]


def listed(values: Iterable[Any]) -> str:
    """Return values with commas between them, cut where there are many."""
    every = [shown(value) for value in values]
    more = f" and {len(every) - LONGEST_LIST} more" if len(every) > LONGEST_LIST else ""
    return ", ".join(every[:LONGEST_LIST]) + more
