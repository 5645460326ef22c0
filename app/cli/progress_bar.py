"""What a terminal shows while a graph runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ...host.errors import LONGEST_VALUE, one_line

if TYPE_CHECKING:
    from ...host.graph.workflow import Prompt


class ProgressDisplay:
    """One bar for the whole graph, including the steps inside a node. Silent where standard error is not a terminal."""

    def __init__(self, prompt: Prompt, count: int) -> None:
        self.prompt = prompt
        self.bar: Any = None
        self.node_id = ""
        self.started = 0
        if sys.stderr.isatty():
            from tqdm import tqdm

            shape = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}]"
            self.bar = tqdm(total=count, bar_format=shape, leave=False, file=sys.stderr)

    def update(self, node_id: str, value: float, maximum: float) -> None:
        """Show that `value` of `maximum` steps of a node are done, and all nodes before it."""
        if node_id != self.node_id:
            self.node_id = node_id
            self.started += 1
        if self.bar is None or not maximum:
            return
        steps = f", {value:g}/{maximum:g}" if value else ""
        name = one_line(f"{node_id} {self.prompt[node_id]['class_type']}", LONGEST_VALUE)
        self.bar.set_description_str(f"{name}{steps}", refresh=False)
        self.bar.n = min(self.started - 1 + value / maximum, self.bar.total)
        self.bar.refresh()

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
