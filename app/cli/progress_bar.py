"""What a terminal shows while a graph runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...host.progress import interrupt_current_processing, processing_interrupted, set_progress_bar_global_hook


class ProgressDisplay:
    """One bar for the whole graph, the steps inside a node included. Silent where standard error is not a terminal."""

    def __init__(self, total: int) -> None:
        self.bar: Any = None
        self.started = 0
        if sys.stderr.isatty():
            from tqdm import tqdm

            shape = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}]"
            self.bar = tqdm(total=total, bar_format=shape, leave=False, file=sys.stderr)

    def on_node(self, node_id: str, class_type: str) -> None:
        """A node begins, and those before it are done."""
        self._show(self.started, f"{node_id} {class_type}")
        self.started += 1

    def on_step(self, value: float, total: float, preview: Any) -> None:
        """`value` of `total` steps of the node are done."""
        if self.bar is not None and total:
            self._show(self.started - 1 + value / total, f"{self.bar.desc.split(',')[0]}, {value:g}/{total:g}")

    def _show(self, done: float, text: str) -> None:
        if self.bar is not None:
            self.bar.set_description_str(text, refresh=False)
            self.bar.n = min(done, self.bar.total)
            self.bar.refresh()

    def __enter__(self) -> ProgressDisplay:
        set_progress_bar_global_hook(self.on_step)
        return self

    def __exit__(self, *_: object) -> None:
        set_progress_bar_global_hook(None)
        if self.bar is not None:
            self.bar.close()


@contextmanager
def stop_on_ctrl_c() -> Iterator[None]:
    """Inside, the first Ctrl-C stops the run at its next step, and a second one at once."""

    def stop(number: int, frame: Any) -> None:
        if processing_interrupted():
            raise KeyboardInterrupt
        interrupt_current_processing()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        interrupt_current_processing(False)
