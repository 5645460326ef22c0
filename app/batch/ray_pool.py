"""Workers as actors of Ray, on this machine or on a cluster.

Ray's core, not Ray Data: a job has to come back one by one to be written exactly once, a failed one is tried again by
itself, and a worker gets jobs of the models that it has loaded. Ray Data moves blocks of rows and repeats whole blocks.
Only this process writes results: a worker that is cut off and goes on writes nowhere.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...host.errors import GraphError, one_line
from .pool import Ended, PoolLost
from .worker import ENGINE_LOST, OUT_OF_MEMORY, Order, Outcome, Worker

if TYPE_CHECKING:
    from ...host.graph.documents import Workflow
    from .batch import Options

log = logging.getLogger(__name__)

DEPTH, MOST_DEPTH = 2, 16
"""Jobs that a worker has at a time, one running and one waiting: it never waits for this process, and what a dead one
had is little. More, up to the second, where jobs are shorter than the way to the worker and back."""

AHEAD_SECONDS = 0.05
"""Of work that waits at a worker."""

TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")

OBJECT_STORE_BYTES = 256 * 2**20
"""Of Ray on this machine: what workers return passes through it, a job at a time."""

MOST_FAILED_STARTS = 3
"""How often in a row a worker may fail to start."""

MOST_TOGETHER = 64
"""Jobs that are kept together: their images are in memory."""

CONNECT_SECONDS = 10.0

WAIT_SECONDS = 30.0
"""After so long without any news it is told what is waited for."""


def is_installed() -> bool:
    """Return whether Ray can be imported."""
    return find_spec("ray") is not None


@dataclass
class _Actor:
    """A worker.

    Attributes:
        generation: how often the worker was made anew: what an earlier one says is of no interest.
        numbers: of the jobs that it has, the running one first.
        depth: how many it may have.
    """

    handle: Any = None
    generation: int = 0
    is_ready: bool = False
    is_gone: bool = False
    numbers: list[int] = field(default_factory=list)
    depth: int = DEPTH


class RayPool:
    """A number of actors, each made anew when it or its node dies.

    Args:
        make: returns a new actor for the worker of a number; it has `ready()` and `run(order)`.
        count: how many.
        shut_down: ends Ray at the end.
    """

    def __init__(self, make: Callable[[int], Any], count: int, shut_down: bool) -> None:
        self._make, self._shut_down = make, shut_down
        self._news: queue.SimpleQueue[tuple[int, int, int | None, Any, Exception | None]] = queue.SimpleQueue()
        self._actors = [_Actor() for _ in range(count)]
        self._failed_starts = 0
        for worker in range(count):
            self._start(worker)

    def _start(self, worker: int) -> None:
        actor = self._actors[worker]
        actor.generation += 1
        actor.is_ready, actor.numbers, actor.depth = False, [], DEPTH
        actor.handle = self._make(worker)
        self._listen(worker, None, actor.handle.ready.remote())

    def _listen(self, worker: int, number: int | None, reference: Any) -> None:
        generation = self._actors[worker].generation

        def tell(future: Any) -> None:
            error = future.exception()
            self._news.put((worker, generation, number, None if error else future.result(), error))

        reference.future().add_done_callback(tell)

    def free(self) -> list[int]:
        """Return the workers that take another job; first those that have none."""
        ready = [(w, a) for w, a in enumerate(self._actors) if a.is_ready and not a.is_gone]
        deepest = max((actor.depth for _, actor in ready), default=0)
        return [w for taken in range(deepest) for w, actor in ready if len(actor.numbers) <= taken < actor.depth]

    def submit(self, worker: int, number: int, order: Order) -> None:
        """Hand a job to a worker."""
        actor = self._actors[worker]
        actor.numbers.append(number)
        self._listen(worker, number, actor.handle.run.remote(order))

    def wait(self) -> list[Ended]:
        """Wait for news; return the jobs that have ended."""
        while True:
            try:
                ended = self._heard(*self._news.get(timeout=WAIT_SECONDS))
                # What has come meanwhile is kept together.
                for _ in range(min(self._news.qsize(), MOST_TOGETHER)):
                    ended += self._heard(*self._news.get())
                return ended
            except queue.Empty:
                starting = sum(not actor.is_ready and not actor.is_gone for actor in self._actors)
                if starting:
                    log.warning("%d of %d workers wait for room in the cluster", starting, len(self._actors))

    def _heard(
        self, worker: int, generation: int, number: int | None, result: Any, error: Exception | None
    ) -> list[Ended]:
        actor = self._actors[worker]
        if generation != actor.generation:
            return []
        if number is None:
            return self._started(worker, error)
        if error is not None:
            return self._died(worker, _why(error))
        actor.numbers.remove(number)
        outcome: Outcome = result
        if outcome.kind == OUT_OF_MEMORY:
            actor.numbers.insert(0, number)
            return self._died(worker, outcome.error or outcome.kind)
        if outcome.kind != ENGINE_LOST:
            actor.depth = min(MOST_DEPTH, DEPTH + int(AHEAD_SECONDS / max(outcome.seconds, 1e-3)))
            return [Ended(number, outcome)]
        return self._retire(worker, number, outcome.error or "the engine is gone")

    def _started(self, worker: int, error: Exception | None) -> list[Ended]:
        if error is None:
            self._actors[worker].is_ready = True
            self._failed_starts = 0
            return []
        self._failed_starts += 1
        reason = _why(error)
        if self._failed_starts >= MOST_FAILED_STARTS + len(self._actors):
            raise PoolLost(f"no worker starts: {reason}")
        log.warning("worker %d did not start: %s", worker, reason)
        self._start(worker)
        return []

    def _died(self, worker: int, why: str) -> list[Ended]:
        """Make a worker anew. It may have died of the job that it ran; that it had another one says nothing."""
        import ray

        numbers, reason = self._actors[worker].numbers, f"worker {worker} died: {why}"
        ended = [Ended(number, None, blamed=place == 0, reason=reason) for place, number in enumerate(numbers)]
        # One that is out of memory lives on otherwise.
        ray.kill(self._actors[worker].handle)
        self._start(worker)
        return ended

    def _retire(self, worker: int, number: int, reason: str) -> list[Ended]:
        """Let a worker go whose server is gone; others take its jobs."""
        actor = self._actors[worker]
        ended = [Ended(each, None, reason=reason) for each in [number, *actor.numbers]]
        actor.is_gone, actor.numbers = True, []
        actor.generation += 1
        log.warning("worker %d is given up: %s", worker, reason)
        if all(each.is_gone for each in self._actors):
            raise PoolLost(reason)
        return ended

    def close(self) -> None:
        """End the actors, and Ray where it was started for this."""
        import ray

        for actor in self._actors:
            ray.kill(actor.handle)
        if self._shut_down:
            ray.shutdown()


def _why(error: Exception) -> str:
    """Return the sentence that matters of one of Ray's long explanations.

    >>> _why(RuntimeError("The actor died because of an error raised in its creation task, it():\\nKeyError: 'x'\\n"))
    "KeyError: 'x'"
    >>> _why(RuntimeError("The actor died unexpectedly. Its class is Worker."))
    'The actor died unexpectedly'
    """
    text = TERMINAL_CODES.sub("", str(error)).strip()
    told = text.splitlines()[-1] if "creation task" in text else text.split(". ")[0]
    return one_line(told, 200)


def open_pool(options: Options, workflow: Workflow | None) -> RayPool:
    """Start Ray or join a cluster, and its workers.

    Raises:
        GraphError: the cluster cannot be reached.
    """
    import ray

    from .batch import engine_of

    joined = ray.is_initialized()
    if not joined:
        _connect(options)
    resources = _resources(options)
    count = options.workers or _room(options, resources)
    shared = ray.put(workflow)
    actor_class = ray.remote(Worker)

    def make(worker: int) -> Any:
        name, engine_options = engine_of(options.engines[worker % len(options.engines)], options)
        # A workflow is an argument by reference: the object store sends it once to each node.
        return actor_class.options(max_restarts=0, **resources).remote(name, engine_options, shared, f"ray-{worker}")

    return RayPool(make, count, shut_down=not joined)


def _connect(options: Options) -> None:
    import ray

    # Without it, Ray hides every GPU from workers that take none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        if options.ray is not None:
            _check_address(options.ray)
            ray.init(address=options.ray, **quiet)
        else:
            workers = options.workers or len(options.engines)
            # A cluster that runs here already is none of ours.
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
    except (OSError, RuntimeError, ValueError) as error:
        reason = one_line(str(error).split(". ")[0], 200)
        if options.ray is None:
            raise GraphError([f"--workers: Ray does not start: {reason}; leave it out to run here"]) from error
        raise GraphError([f"--ray {options.ray}: {reason}; is a cluster running there?"]) from error


def _check_address(address: str) -> None:
    """Connect to HOST:PORT once: Ray itself tries for minutes. OSError or ValueError where nobody answers."""
    host, colon, port = address.rpartition(":")
    if colon and "://" not in address:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def _resources(options: Options) -> dict[str, float]:
    """Return what a worker takes: a GPU where there are any, or its share of those of this machine."""
    import ray

    total = ray.cluster_resources()
    gpus = options.worker_gpus
    if gpus is None:
        has = total.get("GPU", 0.0)
        shares = has / options.workers if options.workers and options.ray is None else 1.0
        gpus = min(1.0, shares) if has and options.engines[0] == "embedded" else 0.0
    cpus = options.worker_cpus if options.worker_cpus is not None else 1.0
    return {"num_cpus": cpus, "num_gpus": gpus}


def _room(options: Options, resources: dict[str, float]) -> int:
    """Return how many workers a cluster has room for; servers have one each."""
    import ray

    if options.engines[0] != "embedded":
        return len(options.engines)
    total = ray.cluster_resources()
    rooms = [
        total.get(name, 0.0) / resources[key]
        for name, key in (("CPU", "num_cpus"), ("GPU", "num_gpus"))
        if resources[key]
    ]
    return max(1, int(min(rooms, default=1)))
