"""Workers of Ray, without Ray: who gets a job, what becomes of the jobs of one that dies, and when all is lost."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from naming import naming
from tessera.app.batch import ray_pool
from tessera.app.batch.pool import Ended, PoolLost
from tessera.app.batch.ray_pool import RayPool
from tessera.app.batch.worker import DONE, ENGINE_LOST, OUT_OF_MEMORY, Order, Outcome

ORDER = Order({}, [], {}, {})


class Reference:
    """What a call of an actor returns."""

    def __init__(self) -> None:
        self.result: Future[Any] = Future()

    def future(self) -> Future[Any]:
        return self.result


class Method:
    """A method of an actor."""

    def __init__(self) -> None:
        self.calls: list[Reference] = []

    def remote(self, *_: Any) -> Reference:
        self.calls.append(Reference())
        return self.calls[-1]


class Actor:
    """An actor whose answers a test gives."""

    def __init__(self) -> None:
        self.ready, self.run = Method(), Method()
        self.killed = False


class Fakes:
    """The actors that a pool has made, the newest of each worker."""

    def __init__(self) -> None:
        self.made: list[tuple[int, Actor]] = []

    def make(self, worker: int) -> Actor:
        self.made.append((worker, Actor()))
        return self.made[-1][1]

    def __getitem__(self, worker: int) -> Actor:
        return next(actor for number, actor in reversed(self.made) if number == worker)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    pytest.importorskip("ray")
    monkeypatch.setattr("ray.kill", lambda actor: setattr(actor, "killed", True))
    return Fakes()


def started(fakes: Fakes, count: int) -> RayPool:
    pool = RayPool(fakes.make, count, shut_down=False)
    for worker in range(count):
        fakes[worker].ready.calls[0].result.set_result("ready")
        assert pool.wait() == []
    return pool


def outcome(kind: str = DONE, error: str | None = None, seconds: float = 1.0) -> Outcome:
    return Outcome(kind, "worker", seconds, error=error)


def test_workers_get_jobs_once_they_have_started_and_two_at_most(fakes: Fakes) -> None:
    pool = RayPool(fakes.make, 2, shut_down=False)
    assert pool.free() == []
    fakes[1].ready.calls[0].result.set_result("ready")
    assert pool.wait() == []
    assert pool.free() == [1] * ray_pool.DEPTH
    for number in range(ray_pool.DEPTH):
        pool.submit(1, number, ORDER)
    assert pool.free() == []
    fakes[1].run.calls[0].result.set_result(outcome())
    assert pool.wait() == [Ended(0, outcome())]
    assert pool.free() == [1]


def test_workers_have_more_jobs_ahead_where_these_are_short(fakes: Fakes) -> None:
    pool = started(fakes, 1)
    pool.submit(0, 0, ORDER)
    fakes[0].run.calls[0].result.set_result(outcome(seconds=0.0))
    pool.wait()
    assert len(pool.free()) == ray_pool.MOST_DEPTH


def test_idle_workers_come_first(fakes: Fakes) -> None:
    pool = started(fakes, 2)
    pool.submit(0, 7, ORDER)
    assert pool.free() == [1, 0, 1]


@pytest.mark.parametrize("out_of_memory", [False, True])
def test_worker_that_dies_is_made_anew_and_the_running_job_is_blamed(fakes: Fakes, out_of_memory: bool) -> None:
    pool = started(fakes, 1)
    old = fakes[0]
    for number in (7, 8):
        pool.submit(0, number, ORDER)
    if out_of_memory:
        old.run.calls[0].result.set_result(outcome(OUT_OF_MEMORY, "no memory"))
    else:
        old.run.calls[1].result.set_exception(RuntimeError("the actor died. It was killed."))
    assert [(each.number, each.outcome, each.blamed) for each in pool.wait()] == [(7, None, True), (8, None, False)]
    assert old.killed and fakes[0] is not old
    if not out_of_memory:
        # What the dead one says later is of no interest.
        old.run.calls[0].result.set_result(outcome())
    fakes[0].ready.calls[0].result.set_result("ready")
    while not pool.free():
        assert pool.wait() == []
    pool.submit(0, 7, ORDER)
    fakes[0].run.calls[0].result.set_result(outcome())
    assert pool.wait() == [Ended(7, outcome())]


def test_worker_whose_server_is_gone_is_given_up_and_all_is_lost_with_the_last(fakes: Fakes) -> None:
    pool = started(fakes, 2)
    pool.submit(0, 7, ORDER)
    fakes[0].run.calls[0].result.set_result(outcome(ENGINE_LOST, "http://host: cannot be reached"))
    assert [(each.number, each.outcome, each.blamed) for each in pool.wait()] == [(7, None, False)]
    assert set(pool.free()) == {1}
    pool.submit(1, 7, ORDER)
    fakes[1].run.calls[0].result.set_result(outcome(ENGINE_LOST, "http://other: cannot be reached"))
    with pytest.raises(PoolLost, match=naming("http://other")):
        pool.wait()


def test_workers_that_never_start_end_the_batch(fakes: Fakes) -> None:
    pool = RayPool(fakes.make, 1, shut_down=False)
    with pytest.raises(PoolLost, match=naming("no CUDA")):
        for _ in range(ray_pool.MOST_FAILED_STARTS + 1):
            fakes[0].ready.calls[0].result.set_exception(RuntimeError("no CUDA"))
            assert pool.wait() == []
    pool.close()
    assert all(actor.killed for _, actor in fakes.made[-1:])
