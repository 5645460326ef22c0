"""Disturb batches at random, and compare what they leave with what an undisturbed one does.

    python tests/batch/chaos.py                  200 jobs, 50 disturbances of all kinds; about 20 minutes
    python tests/batch/chaos.py --kinds coordinator interrupt --count 20

Each kind has a folder of its own, in which the same command is started until it has been disturbed often enough and
everything is done. Full disks need root, for a file system of 1 MB in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {
        "class_type": "ImageScale",
        "inputs": {"image": ["1", 0], "upscale_method": "bicubic", "width": 500, "height": 500, "crop": "disabled"},
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "job"}},
}
COUNTS = {"coordinator": 14, "interrupt": 8, "ray coordinator": 5, "worker": 10, "node": 6, "memory": 4, "disk": 3}
"""Disturbances of each kind, 50 in all."""

LONGEST_SECONDS = 600

Process = subprocess.Popen[bytes]
Act = Callable[[Process], bool]
"""Disturbs a batch; returns whether there was anything to disturb."""


class Chaos:
    """Batches of the same jobs.

    Args:
        base: an empty folder.
        jobs: how many.
        seed: of what is done when.
    """

    def __init__(self, base: Path, jobs: int, seed: int) -> None:
        from PIL import Image

        self.base, self.jobs, self.random, self.again = base, jobs, random.Random(seed), 0
        Image.effect_noise((40, 40), 60).convert("RGB").save(base / "photo.png")
        (base / "graph.json").write_text(json.dumps(GRAPH))
        # Some jobs need more memory than the ones before left to their worker.
        rows = "".join(f"{300 + i if i % 20 else 2000 + 14_000 * i // jobs}\n" for i in range(jobs))
        (base / "table.csv").write_text(f"2.width\n{rows}")
        self.expected = self.run_to_end("undisturbed")

    def start(self, name: str, *options: str) -> Process:
        """Start `tessera batch`."""
        command = [sys.executable, "-m", "tessera.app.cli.main", "batch", "graph.json", "table.csv"]
        command += ["--input-dir", ".", "--output-dir", name, *options]
        # Whoever runs in the background ignores Ctrl-C, and so would the batch.
        mend: Any = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        return subprocess.Popen(
            command, cwd=self.base, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=mend
        )

    def run_to_end(self, name: str, *options: str) -> dict[str, str]:
        """Run until everything is done, and return the digests of all files."""
        process = self.start(name, *options)
        _, error = process.communicate(timeout=LONGEST_SECONDS)
        assert process.returncode == 0, error.decode()[-2000:]
        return self.digests(name)

    def digests(self, name: str) -> dict[str, str]:
        """Return the digest of each file; each belongs to one line of the journal, and each job has one."""
        folder = self.base / name
        lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
        assert len(lines) == len({line["job"] for line in lines}) == self.jobs
        assert all(line["error"] is None for line in lines)
        named = sorted(name for line in lines for name in line["files"])
        assert named == sorted(str(path.relative_to(folder)) for path in folder.glob("*/*"))
        assert not list(folder.glob(".partial*"))
        self.again = sum(line["tries"] > 1 for line in lines)
        return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in named}

    def done(self, name: str) -> int:
        """Return how many lines the journal has."""
        path = self.base / name / "results.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait_for(self, name: str, lines: int, process: Process) -> bool:
        """Wait until the journal has so many lines and then a moment; return whether the process still runs."""
        end = time.monotonic() + LONGEST_SECONDS
        while process.poll() is None and time.monotonic() < end and self.done(name) < lines:
            time.sleep(0.005)
        time.sleep(self.random.uniform(0, 0.06))
        return process.poll() is None

    def disturb(self, kind: str, count: int, act: Act, *options: str) -> int:
        """Disturb batches until that has been done often enough, and check what each leaves.

        Returns:
            How often they were disturbed.
        """
        made = rounds = 0
        while made < count:
            rounds += 1
            name = f"{kind} {rounds}"
            disturbances, code = self._disturb(name, count - made, act, *options)
            made += disturbances
            assert (self.run_to_end(name, *options) if code else self.digests(name)) == self.expected
            shutil.rmtree(self.base / name)
        print(f"{kind}: {made} disturbances in {rounds} batches, {self.again} jobs tried again", flush=True)
        return made

    def _disturb(self, name: str, count: int, act: Act, *options: str) -> tuple[int, int]:
        """Disturb one batch at random places, and start it again where that ended it.

        Returns:
            How often it was disturbed, and the exit code of its last process.
        """
        made = 0
        process = self.start(name, *options)
        for place in sorted(self.random.sample(range(self.jobs - 5), count)):
            if process.poll() is not None:
                process = self.start(name, *options)
            if not self.wait_for(name, max(place, self.done(name) + 1), process):
                continue
            if act(process):
                # One that had just come to its end was not disturbed.
                made += act not in ENDS or process.wait(LONGEST_SECONDS) == ENDS[act]
        process.communicate(timeout=LONGEST_SECONDS)
        return made, process.returncode


def kill(process: Process) -> bool:
    """End a process at once."""
    process.kill()
    return True


def interrupt(process: Process) -> bool:
    """Press Ctrl-C."""
    process.send_signal(signal.SIGINT)
    return True


ENDS: dict[Act, int] = {kill: -signal.SIGKILL, interrupt: 130}
"""How a batch ends that is disturbed so."""


def actors(ancestor: int) -> list[int]:
    """Return the processes of Ray's actors that a process has started."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            names[int(path.name)] = path.joinpath("cmdline").read_text()
        except (OSError, IndexError, ValueError):
            continue
    return [pid for pid, name in names.items() if name.startswith("ray::Worker") and ancestor in _above(pid, parents)]


def _above(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid in parents:
        pid = parents[pid]
        yield pid


def kill_worker(chaos: Chaos) -> Act:
    """Return what ends one of the workers of a batch."""

    def act(process: Process) -> bool:
        found = actors(process.pid)
        if found:
            os.kill(chaos.random.choice(found), signal.SIGKILL)
        return bool(found)

    return act


def fill_memory(chaos: Chaos) -> Act:
    """Return what leaves one of the workers without memory."""

    def act(process: Process) -> bool:
        found = actors(process.pid)
        if found:
            pid = chaos.random.choice(found)
            used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            resource.prlimit(pid, resource.RLIMIT_AS, (used, used))
        return bool(found)

    return act


def disturb_nodes(chaos: Chaos, count: int) -> int:
    """Take nodes of a cluster of three away, and give it others."""
    from ray.cluster_utils import Cluster

    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    # Nothing runs on the head, which every cluster needs.
    cluster = Cluster(initialize_head=True, head_node_args={**small, "num_cpus": 0})
    nodes = [cluster.add_node(**small) for _ in range(2)]

    def act(_: Process) -> bool:
        cluster.remove_node(nodes.pop(chaos.random.randrange(len(nodes))), allow_graceful=False)
        nodes.append(cluster.add_node(**small))
        return True

    try:
        return chaos.disturb("node", count, act, "--ray", str(cluster.address))
    finally:
        cluster.shutdown()


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[int], None]]:
    """Mount a file system in memory; the value sets its size in KiB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}k", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_disk(chaos: Chaos, count: int) -> int:
    """Let a batch run on a disk that is full, and again on a larger one, until all have room."""
    whole = sum(path.stat().st_size for path in (chaos.base / "undisturbed").glob("*/*")) // 1024
    with small_disk(chaos.base / "disk") as resize:
        for part in range(1, count + 1):
            resize(whole * part // (count + 1))
            process = chaos.start("disk")
            _, error = process.communicate(timeout=LONGEST_SECONDS)
            assert process.returncode == 1 and b"No space left" in error, error.decode()
        resize(4 * whole)
        assert chaos.run_to_end("disk") == chaos.expected
    print(f"disk: {count} disturbances in 1 batch", flush=True)
    return count


def disturb(chaos: Chaos, kind: str, count: int) -> int:
    """Disturb batches in one way; return how often."""
    if kind == "coordinator":
        return chaos.disturb(kind, count, kill)
    if kind == "interrupt":
        return chaos.disturb(kind, count, interrupt)
    if kind == "ray coordinator":
        return chaos.disturb(kind, count, kill, "--workers", "2")
    if kind == "worker":
        return chaos.disturb(kind, count, kill_worker(chaos), "--workers", "2", "--retries", "9")
    if kind == "memory":
        return chaos.disturb(kind, count, fill_memory(chaos), "--workers", "2", "--retries", "9")
    return disturb_nodes(chaos, count) if kind == "node" else fill_disk(chaos, count)


def main() -> int:
    """Disturb, and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="*", default=list(COUNTS))
    parser.add_argument("--count", type=int, help="of each kind")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="tessera-chaos-"))
    try:
        chaos = Chaos(base, asked.jobs, asked.seed)
        total = sum(disturb(chaos, kind, asked.count or COUNTS[kind]) for kind in asked.kinds)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(f"{total} disturbances in {len(asked.kinds)} batches of {asked.jobs} jobs; every job once, bit by bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
