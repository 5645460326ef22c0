"""Two ways of doing the same, timed by turns in one process, so that load on the machine falls on both, or counted."""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Settings of glibc's mallopt."""


def keep_memory() -> None:
    """Never hand freed memory back on Linux: fetching it again took a step up to 37,000 page faults, or none."""
    if sys.platform == "linux":
        allocator = ctypes.CDLL(None)
        allocator.mallopt(M_MMAP_MAX, 0)
        allocator.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def now(device: str) -> float:
    """Seconds: by the clock on a GPU, of this process on a CPU, where other programs' load does not count."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds(run: Callable[[], object], device: str) -> float:
    """Of one call, by `now`."""
    start = now(device)
    run()
    return now(device) - start


def compare(plain: Callable[[], object], ours: Callable[[], object], device: str, pairs: int) -> tuple[float, ...]:
    """Median seconds of `plain` and `ours`, and the median of their ratio over pairs, after one call of each."""
    plain()
    ours()
    times = []
    for number in range(pairs):
        runs = [plain, ours]
        taken = [seconds(run, device) for run in (runs[::-1] if number % 2 else runs)]
        times.append(taken[::-1] if number % 2 else taken)
    stock, wrapped = (statistics.median(column) for column in zip(*times, strict=True))
    return stock, wrapped, statistics.median(b / a for a, b in times)


class CountingOps(TorchDispatchMode):
    """Counts what a device runs: views are free."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))
