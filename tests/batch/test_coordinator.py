"""Handing out jobs, without engines: a pool that would wait for ever where nothing runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tessera.app.batch.coordinator import Coordinator
from tessera.app.batch.journal import Result
from tessera.app.batch.plan import Planned
from tessera.app.batch.pool import Ended
from tessera.app.batch.queue import JobQueue
from tessera.app.batch.worker import DONE, FAILED, Order, Outcome
from tessera.host.errors import GraphError

CHANGED = "changed"


class Pool:
    """Two workers with room for two jobs each."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def free(self) -> list[int]:
        return [0, 1, 0, 1][len(self.numbers) :]

    def submit(self, worker: int, number: int, order: Order) -> None:
        self.numbers.append(number)

    def wait(self) -> list[Ended]:
        assert self.numbers, "waits for nobody"
        return [Ended(self.numbers.pop(0), Outcome(DONE, "", 0.0))]

    def close(self) -> None:
        pass


class Jobs:
    """Jobs of which some are refused when it is their turn."""

    def again(self, content: str) -> Planned:
        if content == CHANGED:
            raise GraphError(["an input file has changed"])
        return Planned(content, "", {}, [], {}, {}, {})


class Journal:
    def __init__(self) -> None:
        self.errors: list[str | None] = []

    def commit(self, results: Sequence[Result]) -> None:
        self.errors += [result.line["error"] for result in results]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    made = JobQueue(tmp_path / "jobs")
    yield made
    made.close()


@pytest.mark.parametrize("refused", [range(6), range(1, 9), range(12), [0, 3, 11]])
def test_refused_jobs_leave_no_worker_without_the_next_one(queue: JobQueue, refused: Sequence[int]) -> None:
    for number in range(12):
        queue.add(f"key {number}", number, "model", CHANGED if number in refused else f"key {number}")
    journal: Any = Journal()
    coordinator = Coordinator(queue, Jobs(), Pool(), journal)
    coordinator.work()
    assert (coordinator.counts[FAILED], coordinator.counts[DONE]) == (len(refused), 12 - len(refused))
    assert sum(error is not None for error in journal.errors) == len(refused)
    assert len(journal.errors) == 12
