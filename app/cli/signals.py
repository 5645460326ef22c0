"""Ctrl-C and SIGTERM while a graph runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...host.progress import interrupt_current_processing, processing_interrupted
from .arguments import STOPPED, TERMINATED

TERMINATION = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that end the process soon, by whoever sent them: a service manager, a terminal that was closed."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end, and has seconds left to report that."""


def ended(stop: KeyboardInterrupt) -> tuple[int, str]:
    """Return the exit code of a command that a signal ended, and how that is called."""
    return (TERMINATED, "terminated") if isinstance(stop, Terminated) else (STOPPED, "stopped")


class Signals:
    """What signals do at the moment: they end the run at once, until its end is reported."""

    def __init__(self) -> None:
        self._steps = False
        self._over = False

    @contextmanager
    def stop_at_next_step(self) -> Iterator[None]:
        """Let the first Ctrl-C stop the run at its next step; a second one stops it at once."""
        self._steps = True
        try:
            yield
        finally:
            self._steps = False
            interrupt_current_processing(False)

    def let_report(self) -> None:
        """Ignore from now on what asks the process to end: it does so when the report has been sent."""
        self._over = True

    def handle(self, number: int, frame: Any) -> None:
        """Stop what runs."""
        if number in TERMINATION:
            if self._over:
                return
            self._over = True
            raise Terminated
        if not self._steps or processing_interrupted():
            raise KeyboardInterrupt
        interrupt_current_processing()


@contextmanager
def handled() -> Iterator[Signals]:
    """Handle Ctrl-C, SIGTERM and SIGHUP, but for those that the process was started to ignore, as by nohup."""
    signals = Signals()
    numbers = [each for each in (signal.SIGINT, *TERMINATION) if signal.getsignal(each) != signal.SIG_IGN]
    before = {number: signal.signal(number, signals.handle) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            # None stands for what no Python code has set.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
