"""Hand out jobs, keep what comes back, try again what failed, until everything is done."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...host.errors import GraphError
from .journal import Journal, Result
from .plan import Planned
from .pool import Ended, Pool
from .queue import WAITING, JobQueue, Waiting
from .worker import DONE, FAILED, OUT_OF_MEMORY, REFUSED, Order, Outcome

log = logging.getLogger(__name__)

Kept = tuple[Waiting, Mapping[str, Any], Outcome]
"""A job that is through, what its row sets, and how it ended."""

Tell = Callable[[bool], None]
"""Called when a job is through, with whether it has results."""


class Jobs(Protocol):
    """Makes jobs of what the queue has of them."""

    def again(self, content: str) -> Planned:
        """Return a job."""
        ...


@dataclass
class Coordinator:
    """Runs the jobs of a queue.

    Attributes:
        retries: how often a job is tried again that failed, or that a worker died of.
        tell: called for each job that is through.
        counts: how many jobs are done and failed.
        models: what each worker has loaded.
    """

    queue: JobQueue
    jobs: Jobs
    pool: Pool
    journal: Journal
    retries: int = 2
    tell: Tell = lambda done: None
    counts: Counter[str] = field(default_factory=Counter)
    models: dict[int, str] = field(default_factory=dict)
    running: dict[int, tuple[Waiting, Planned]] = field(default_factory=dict)

    def work(self) -> None:
        """Run until nothing waits.

        Raises:
            PoolLost: nobody is left to run it.
            OSError: results cannot be written.
        """
        while True:
            self._hand_out()
            if not self.running and not self.queue.count(WAITING):
                return
            self._keep([kept for ended in self.pool.wait() if (kept := self._settle(ended))])

    def _hand_out(self) -> None:
        for worker in self.pool.free():
            # Whoever is refused leaves the worker free: without a job that runs, nobody would hear of the next one.
            while (waiting := self.queue.take(self.models.get(worker), set(self.models.values()))) is not None:
                self.models[worker] = waiting.model
                if self._begin(worker, waiting):
                    break

    def _begin(self, worker: int, waiting: Waiting) -> bool:
        """Hand a job to a worker; return whether it runs, or is refused for files that are not as they were."""
        try:
            planned = self.jobs.again(waiting.content)
            if planned.key != waiting.key:
                raise GraphError(["an input file has changed since the batch began; start it again"])
            order = order_of(planned)
        except GraphError as error:
            self._keep([(waiting, {}, Outcome(REFUSED, "coordinator", 0.0, error="; ".join(error.lines)))])
            return False
        self.running[waiting.number] = waiting, planned
        self.pool.submit(worker, waiting.number, order)
        return True

    def _settle(self, ended: Ended) -> Kept | None:
        """Return what is kept of a job; None where it waits again."""
        waiting, planned = self.running.pop(ended.number)
        outcome = ended.outcome
        if outcome is None:
            if not ended.blamed or waiting.tries <= self.retries:
                return self._try_again(waiting, ended.reason, counted=ended.blamed)
            outcome = Outcome(FAILED, "", 0.0, error=ended.reason)
        elif outcome.kind in (FAILED, OUT_OF_MEMORY) and waiting.tries <= self.retries:
            return self._try_again(waiting, str(outcome.error), counted=True)
        return waiting, planned.inputs, outcome

    def _try_again(self, waiting: Waiting, reason: str, counted: bool) -> None:
        log.warning("line %d: %s; it is tried again", waiting.line, reason)
        self.queue.give_back(waiting.number, counted)

    def _keep(self, jobs: Sequence[Kept]) -> None:
        self.journal.commit([Result(_line(*job), job[2].files) for job in jobs])
        for waiting, _, outcome in jobs:
            self.queue.finish(waiting.key)
            self.counts[DONE if outcome.error is None else FAILED] += 1
            self.tell(outcome.error is None)


def _line(waiting: Waiting, inputs: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return what the journal tells of a job, but for its files."""
    return {
        "job": waiting.key,
        "line": waiting.line,
        "inputs": inputs,
        "outputs": outcome.told,
        "seconds": outcome.seconds,
        "worker": outcome.worker,
        "tries": waiting.tries,
        "error": outcome.error,
    }


def order_of(planned: Planned) -> Order:
    """Return a job as a worker gets it.

    Raises:
        GraphError: an input file cannot be read, or has changed.
    """
    settings = {}
    for setting in planned.inputs if planned.ui_graph is None else ():
        node_id, _, name = setting.partition(".")
        settings[setting] = planned.prompt[node_id]["inputs"][name]
    return Order(planned.prompt, planned.outputs, planned.read_files(), settings, planned.ui_graph)
