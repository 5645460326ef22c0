"""What goes wrong with an engine itself."""

from __future__ import annotations

from typing import Any


class EngineLost(Exception):  # noqa: N818 - what happened, not a mistake
    """The engine cannot be reached, or answers what no engine would; another one may run the prompt."""

    def __init__(self, line: str) -> None:
        self.line = line
        super().__init__(line)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.line,)
