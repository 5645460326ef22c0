"""Prompts that wait, the one that runs, and those that are done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...host.graph.workflow import Prompt
from ...host.progress import interrupt_current_processing

MAX_PENDING = 10_000
"""Prompts that may wait."""

MAX_HISTORY = 1_000
"""Prompts whose results are remembered."""

MAX_HISTORY_BYTES = 64 * 2**20
"""Together the bodies of their requests are no larger; a prompt carries its whole graph."""

Entry = dict[str, Any]
"""What the history tells of a prompt: `prompt`, `outputs`, `status`, `meta`."""


class QueueFull(Exception):  # noqa: N818 - what it is
    """No more prompts can wait."""


@dataclass
class Job:
    """A prompt that was found right.

    Attributes:
        number: its place in the queue; smaller ones run first, equal ones as they came.
        outputs: the ids of the output nodes to run.
        resting: of nodes that do not run, whose results stay for the next prompt.
        extra_data: what came with it: `client_id`, `extra_pnginfo`, `preview_method`, `create_time`.
        size: of its request in bytes.
        interrupted: whether it shall stop.
    """

    number: float
    prompt_id: str
    prompt: Prompt
    outputs: list[str]
    extra_data: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    resting: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def client_id(self) -> str | None:
        """Who sent it."""
        return self.extra_data.get("client_id")

    def as_item(self) -> list[Any]:
        """Return it as /queue and /history show it."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


class JobQueue:
    """One queue for one worker. Every method may be called from any thread.

    Args:
        on_change: called when jobs came, began or ended.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.on_change = on_change
        self._changed = threading.Condition()
        self._pending: list[Job] = []
        self._running: Job | None = None
        self._history: dict[str, Entry] = {}
        self._sizes: dict[str, int] = {}
        self._next_number = 0
        self._free = False
        self._closed = False

    def number(self, front: bool = False) -> int:
        """Return the place of the next prompt: behind all others, or in front of them."""
        with self._changed:
            number = -self._next_number if front else self._next_number
            self._next_number += 1
        return number

    def put(self, job: Job) -> None:
        """Let a job wait.

        Raises:
            QueueFull: too many are waiting.
        """
        with self._changed:
            if len(self._pending) >= MAX_PENDING:
                raise QueueFull(f"{MAX_PENDING} prompts are waiting; try again when some of them are done")
            self._pending.append(job)
            # Stable, so that equal numbers keep their order.
            self._pending.sort(key=lambda each: each.number)
            self._changed.notify()
        self.on_change()

    def take(self) -> Job | None:
        """Wait for a job, or until memory shall be freed, or the end: those give None."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._free or self._closed)
            if self._free or self._closed:
                return None
            self._running = self._pending.pop(0)
        self.on_change()
        return self._running

    def finish(self, job: Job, entry: Entry) -> None:
        """Remember what came of the job that ran."""
        with self._changed:
            self._running = None
            # Whoever stopped it a moment too late shall not stop the next one.
            interrupt_current_processing(False)
            self._history.pop(job.prompt_id, None)
            self._history[job.prompt_id] = entry
            self._sizes[job.prompt_id] = job.size
            while len(self._history) > MAX_HISTORY or (
                len(self._history) > 1 and sum(self._sizes.values()) > MAX_HISTORY_BYTES
            ):
                self._forget(next(iter(self._history)))
        self.on_change()

    def interrupt(self, prompt_id: str | None = None) -> bool:
        """Stop what runs, or only if it has this id; return whether something is being stopped."""
        with self._changed:
            if self._running is None or prompt_id not in (None, self._running.prompt_id):
                return False
            self._running.interrupted = True
            interrupt_current_processing()
            return True

    def delete(self, prompt_id: str) -> bool:
        """Take a waiting job away; return whether there was one."""
        with self._changed:
            before = len(self._pending)
            self._pending = [job for job in self._pending if job.prompt_id != prompt_id]
            found = len(self._pending) < before
        if found:
            self.on_change()
        return found

    def clear(self) -> None:
        """Take all waiting jobs away."""
        with self._changed:
            self._pending.clear()
        self.on_change()

    def cancel(self, prompt_id: str) -> bool:
        """Take a job away or stop it; return whether there was something to do."""
        return self.delete(prompt_id) or self.interrupt(prompt_id)

    def snapshot(self) -> tuple[list[Job], list[Job], dict[str, Entry]]:
        """Return the job that runs, those that wait, and the history."""
        with self._changed:
            return [self._running] if self._running else [], list(self._pending), dict(self._history)

    @property
    def remaining(self) -> int:
        """How many jobs wait or run."""
        with self._changed:
            return len(self._pending) + (self._running is not None)

    def forget(self, prompt_id: str) -> None:
        """Drop a prompt from the history."""
        with self._changed:
            self._forget(prompt_id)

    def _forget(self, prompt_id: str) -> None:
        self._history.pop(prompt_id, None)
        self._sizes.pop(prompt_id, None)

    def forget_all(self) -> None:
        """Empty the history."""
        with self._changed:
            self._history.clear()
            self._sizes.clear()

    def ask_to_free(self) -> None:
        """Have the worker drop models and cached results before the next job."""
        with self._changed:
            self._free = True
            self._changed.notify()

    def asked_to_free(self) -> bool:
        """Return, once, whether memory shall be freed."""
        with self._changed:
            asked, self._free = self._free, False
            return asked

    def close(self) -> None:
        """End: nothing is taken any more, and what runs is stopped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self.interrupt()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed
