"""Where one coordinator of `tessera batch` saturates: its real queue, checks and journal, with workers that only wait.

    python benchmarks/batch_scaling.py [--seconds 5] [--job-seconds 1] [--workers 1000]

A worker takes a second a job and returns an image of so many bytes. What grows with the number of workers is counted:
jobs a second, how busy the workers are, and the share of a processor that the coordinator takes. The workers are busy
until the jobs of all of them take the coordinator longer than a job takes a worker; that number is the saturation.
What Ray adds a job is measured by batch_overhead.py.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from batch_overhead import NoOp, options
from tessera.app.batch.batch import QUEUE, Batch
from tessera.app.batch.coordinator import Coordinator
from tessera.app.batch.journal import Journal
from tessera.app.batch.pool import Ended
from tessera.app.batch.queue import JobQueue
from tessera.app.batch.ray_pool import DEPTH, MOST_TOGETHER
from tessera.app.batch.worker import DONE, Order, Outcome

BYTES = (0, 30_000, 1_000_000)
"""Of a job's image: none, a texture of 128 pixels, one of 1024."""

BUSY = 0.9
"""Workers that are less busy than that wait for the coordinator."""


class Over(Exception):  # noqa: N818 - the end of a measurement
    """The time of a measurement is over."""


class FakeWorkers:
    """Workers that take some time for a job and return some bytes, for a number of seconds.

    Args:
        count: how many.
        job_seconds: that a job takes.
        content: of the image of a job.
        seconds: after which `wait` raises Over, counted from when the first jobs have ended.
    """

    def __init__(self, count: int, job_seconds: float, content: bytes, seconds: float) -> None:
        self.job_seconds, self.content = job_seconds, content
        self.has = Counter(dict.fromkeys(range(count), 0))
        self.ready_at = dict.fromkeys(range(count), 0.0)
        self.ends: list[tuple[float, int, int]] = []
        self.begin, self.seconds = 0.0, seconds
        self.done, self.processor = 0, 0.0

    def free(self) -> list[int]:
        """Return the workers that take another job, idle ones first."""
        by_load: list[list[int]] = [[] for _ in range(DEPTH)]
        for worker, number in self.has.items():
            for place in range(number, DEPTH):
                by_load[place].append(worker)
        return [worker for level in by_load for worker in level]

    def submit(self, worker: int, number: int, order: Order) -> None:
        """Begin a job once the worker is through with the one before."""
        self.has[worker] += 1
        ends = max(time.monotonic(), self.ready_at[worker]) + self.job_seconds
        self.ready_at[worker] = ends
        heapq.heappush(self.ends, (ends, number, worker))

    def wait(self) -> list[Ended]:
        """Return the jobs that have ended, as many as the workers of Ray would."""
        now = time.monotonic()
        if not self.begin:
            # Every worker has its jobs.
            self.begin = now + self.job_seconds
        if not self.processor and now > self.begin:
            self.processor = time.process_time()
        if now > self.begin + self.seconds:
            raise Over
        time.sleep(max(0.0, self.ends[0][0] - now))
        ended = [self._ended() for _ in range(MOST_TOGETHER) if self.ends[0][0] <= time.monotonic()]
        self.done += len(ended) if now > self.begin else 0
        return ended

    def _ended(self) -> Ended:
        _, number, worker = heapq.heappop(self.ends)
        self.has[worker] -= 1
        files = {"image_00001_.png": self.content} if self.content else {}
        return Ended(number, Outcome(DONE, f"fake {worker}", self.job_seconds, files))

    def close(self) -> None:
        """Nothing is left to do."""


@dataclass(frozen=True)
class Measured:
    """What a coordinator did with a number of workers."""

    workers: int
    jobs_a_second: float
    busy: float
    processor: float


def measure(batch: Batch, base: Path, workers: int, job_seconds: float, size: int, seconds: float) -> Measured:
    """Let a coordinator work for some seconds."""
    content = json.dumps({"2.width": 5})
    folder = base / f"{workers}-{size}"
    with closing(Journal(folder)) as journal, closing(JobQueue(folder / QUEUE)) as queue:
        queue.begin()
        for number in range(int(DEPTH * workers + 2000 * (seconds + job_seconds))):
            queue.add(f"{number:032x}", number, "model", content)
        queue.end()
        fakes = FakeWorkers(workers, job_seconds, b"x" * size, seconds)
        with suppress(Over):
            Coordinator(queue, batch.jobs, fakes, journal).work()
        rate = fakes.done / seconds
        used = (time.process_time() - fakes.processor) / seconds
        return Measured(workers, rate, rate * job_seconds / workers, used)


def main() -> int:
    """Measure, and print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--job-seconds", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=1000)
    asked = parser.parse_args()
    counts = [count for count in (10, 30, 100, 300, 1000, 3000) if count <= asked.workers]
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        engine = NoOp(input_dir=name)
        with closing(Batch(options(base, 1), None, base / "queue", engine)) as batch:
            for size in BYTES:
                print(f"jobs of {asked.job_seconds:g} s that return {size} bytes")
                print("workers | jobs/s | busy | coordinator's share of a processor | ms a job")
                found = [measure(batch, base, n, asked.job_seconds, size, asked.seconds) for n in counts]
                for each in found:
                    spent = 1000 * each.processor / each.jobs_a_second if each.jobs_a_second else 0
                    rates = f"{each.jobs_a_second:6.1f} | {each.busy:4.0%} | {each.processor:4.0%} | {spent:.2f}"
                    print(f"{each.workers:7d} | {rates}")
                most = max(each.jobs_a_second for each in found)
                few = [each.workers for each in found if each.busy < BUSY]
                what = f"not reached with {counts[-1]} workers" if not few else f"{most:.0f} jobs/s"
                print(f"saturation: {what}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
