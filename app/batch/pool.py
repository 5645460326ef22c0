"""Who runs the jobs. The plain form: one after the other, in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .worker import ENGINE_LOST, Order, Outcome, Worker


class PoolLost(Exception):  # noqa: N818 - what happened, not a mistake
    """Nobody is left to run anything."""

    def __init__(self, line: str) -> None:
        self.line = line
        super().__init__(line)


@dataclass(frozen=True)
class Ended:
    """A job that a worker is through with.

    Attributes:
        number: of the job.
        outcome: None where the worker died, or lost its engine, before it was through.
        blamed: whether it may have been this job that the worker died of.
        reason: why the worker died, in one line.
    """

    number: int
    outcome: Outcome | None
    blamed: bool = False
    reason: str = ""


class Pool(Protocol):
    """Workers, numbered from 0."""

    def free(self) -> list[int]:
        """Return the workers that take another job; one that takes two stands there twice."""
        ...

    def submit(self, worker: int, number: int, order: Order) -> None:
        """Hand a job to a worker that is free."""
        ...

    def wait(self) -> list[Ended]:
        """Wait until something has changed; return the jobs that have ended.

        Raises:
            PoolLost: nobody is left.
        """
        ...

    def close(self) -> None:
        """Let go of everything, running jobs included."""
        ...


class LoopPool:
    """One worker in this process: a job is run when it is waited for."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._order: tuple[int, Order] | None = None

    def free(self) -> list[int]:
        """Return the one worker, if it has no job."""
        return [0] if self._order is None else []

    def submit(self, worker: int, number: int, order: Order) -> None:
        """Keep the job until it is waited for."""
        self._order = (number, order)

    def wait(self) -> list[Ended]:
        """Run the job."""
        if self._order is None:
            return []
        number, order = self._order
        outcome = self.worker.run(order)
        self._order = None
        if outcome.kind == ENGINE_LOST:
            raise PoolLost(outcome.error or "the engine is gone")
        return [Ended(number, outcome)]

    def close(self) -> None:
        """Forget the models."""
        self.worker.engine.close()
