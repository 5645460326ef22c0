"""What `tessera batch` takes beyond the jobs themselves: time a job, and memory by the number of rows.

    python benchmarks/batch_overhead.py             everything; some minutes
    python benchmarks/batch_overhead.py --quick     100 no-op jobs and 2 real ones

* Demo jobs of about a second, one worker / the same jobs by `tessera.run` in one loop: at most 1.05. Rounds of both
  alternate, and the fastest of each count.
* 10,000 jobs that do nothing, in this process and through Ray: at most 5 ms a job from the queue to the journal.
* Memory of the coordinator with 100,000 rows / with 1,000, each in a process of its own: at most 1.1.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import tessera
from tessera.app.batch.batch import QUEUE, Batch, Options
from tessera.app.batch.coordinator import Coordinator
from tessera.app.batch.journal import Journal
from tessera.app.batch.pool import Pool
from tessera.app.engines.embedded import EmbeddedEngine
from tessera.app.engines.engine import Made, Progress, Task

ROOT = Path(__file__).parents[1]
RATIO, MILLISECONDS, MEMORY = 1.05, 5.0, 1.1
NO_OP = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {
        "class_type": "ImageScale",
        "inputs": {"image": ["1", 0], "upscale_method": "bilinear", "width": 64, "height": 64, "crop": "disabled"},
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "no_op"}},
}


class NoOp(EmbeddedEngine):
    """An engine whose jobs take no time and make nothing."""

    def run(self, task: Task, progress: Progress | None = None) -> Made:
        """Do nothing."""
        return Made({}, {}, {})


class NoOpActor:
    """A worker of Ray whose jobs take no time."""

    def ready(self) -> str:
        """Say so."""
        return "no-op"

    def run(self, order: object) -> object:
        """Do nothing."""
        from tessera.app.batch.worker import DONE, Outcome

        return Outcome(DONE, "no-op", 0.0)


def options(folder: Path, rows: int) -> Options:
    """Write a workflow of no-op jobs and a table with so many rows; return the batch of both."""
    from PIL import Image

    Image.new("RGB", (8, 8)).save(folder / "photo.png")
    (folder / "graph.json").write_text(json.dumps(NO_OP))
    with (folder / "table.csv").open("w") as table:
        table.write("2.width,2.height\n")
        table.writelines(f"{1 + row % 16384},{1 + row // 16384}\n" for row in range(rows))
    return Options(str(folder / "graph.json"), folder / "table.csv", folder / "out", input_dir=folder)


def no_op_milliseconds(folder: Path, rows: int, ray: bool) -> tuple[float, float]:
    """Milliseconds a job to check its row, and to run it."""
    asked = options(folder, rows)
    with closing(Journal(asked.output_dir)) as journal:
        started = time.perf_counter()
        with closing(Batch(asked, journal, asked.output_dir / QUEUE, NoOp(input_dir=str(folder)))) as batch:
            planned = time.perf_counter()
            if ray:
                with closing(no_op_pool()) as pool:
                    wait_for_a_worker(pool)
                    planned_ray = time.perf_counter()
                    Coordinator(batch.queue, batch.jobs, pool, journal).work()
                    ran = time.perf_counter() - planned_ray
            else:
                batch.run()
                ran = time.perf_counter() - planned
    assert sum(1 for _ in (asked.output_dir / "results.jsonl").open()) == rows
    return 1000 * (planned - started) / rows, 1000 * ran / rows


def no_op_pool() -> Pool:
    """Return two actors that do nothing."""
    import ray
    from tessera.app.batch.ray_pool import RayPool

    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    ray.init("local", num_cpus=2, object_store_memory=2**28, **quiet)
    actor = ray.remote(NoOpActor)
    return RayPool(lambda worker: actor.options(num_cpus=1).remote(), 2, shut_down=True)


def wait_for_a_worker(pool: Pool) -> None:
    """Wait until a worker has started, which is not part of a job."""
    while not pool.free():
        pool.wait()


def demo_ratio(folder: Path, jobs: int, rounds: int) -> tuple[float, float]:
    """Wall seconds and processor seconds of a batch / of the same jobs in one loop."""
    workflow = str(ROOT / "example_workflows" / "seamless_texture.json")
    table = folder / "table.csv"
    table.write_text("6.seed\n" + "".join(f"{seed}\n" for seed in range(jobs)))
    engine = EmbeddedEngine()
    tessera.run(workflow, {"6.steps": 1}, output_dir=folder / "warm")
    best = {"loop": [9e9, 9e9], "batch": [9e9, 9e9]}

    def note(name: str, wall: float, used: float) -> None:
        now = time.perf_counter() - wall, time.process_time() - used
        best[name] = [min(pair) for pair in zip(best[name], now, strict=True)]

    for number in range(rounds):
        wall, used = time.perf_counter(), time.process_time()
        for seed in range(jobs):
            tessera.run(workflow, {"6.seed": seed}, output_dir=folder / f"loop{number}")
        note("loop", wall, used)
        out = folder / f"batch{number}"
        with closing(Journal(out)) as journal:
            wall, used = time.perf_counter(), time.process_time()
            batch = Batch(Options(workflow, table, out), journal, out / QUEUE, engine)
            batch.run()
            note("batch", wall, used)
            batch.queue.close()
    wall_ratio, used_ratio = (of / by for of, by in zip(best["batch"], best["loop"], strict=True))
    print(
        f"demo jobs of {best['loop'][0] / jobs:.2f} s: batch / loop {wall_ratio:.3f} wall, {used_ratio:.3f} processor"
    )
    return wall_ratio, used_ratio


def peak_megabytes(rows: int) -> float:
    """Memory of a process that ran a batch of no-op jobs."""
    command = [sys.executable, __file__, "--rows", str(rows)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> int:
    """Measure, print, and compare with the budgets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rows:
        with tempfile.TemporaryDirectory() as folder:
            no_op_milliseconds(Path(folder), asked.rows, ray=False)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return 0
    jobs = 100 if asked.quick else 10_000
    met = []
    for ray in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            check, run = no_op_milliseconds(Path(folder), jobs, ray)
        by = "by Ray" if ray else "in this process"
        print(f"{jobs} no-op jobs {by}: {check:.2f} ms to check a row, {run:.2f} to run it (at most {MILLISECONDS})")
        met.append(run <= MILLISECONDS)
    with tempfile.TemporaryDirectory() as folder:
        wall, _ = demo_ratio(Path(folder), *((2, 1) if asked.quick else (6, 4)))
    met.append(wall <= RATIO)
    if not asked.quick:
        few, many = peak_megabytes(1_000), peak_megabytes(100_000)
        print(f"memory with 1,000 rows {few:.0f} MB, with 100,000 {many:.0f} MB: {many / few:.3f} (at most {MEMORY})")
        met.append(many / few <= MEMORY)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
