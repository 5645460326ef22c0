"""The results of a batch on disk: a folder a job, and one line of `results.jsonl` that says it is complete."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files.writing import replace
from ...host.errors import GraphError
from .queue import JobQueue

RESULTS = "results.jsonl"
LOCK = ".lock"
STARTED = "batch.json"
PARTIAL = ".partial-"
"""The beginning of the name of a job's folder until it is complete."""

MOST_THREADS = 16
"""That wait for the disk."""

FORCE_SECONDS = 1.0
"""Between two times at which the lines are forced to disk; the files of a job are, before it has a line."""


@dataclass(frozen=True)
class Result:
    """What is kept of a job.

    Attributes:
        line: what is told of it.
        files: contents by relative path; none of a job that failed.
    """

    line: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def key(self) -> str:
        """The job's."""
        return str(self.line["job"])

    @property
    def told(self) -> dict[str, Any]:
        """The line with the files."""
        return {**self.line, "files": [f"{self.key}/{name}" for name in self.files]}

    def write(self, folder: Path) -> list[Path]:
        """Write the files into a new folder, and return their paths."""
        shutil.rmtree(folder, ignore_errors=True)
        paths = [folder / name for name in self.files]
        for path, content in zip(paths, self.files.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return paths


class Journal:
    """The folder of a batch, which one process at a time writes.

    A job's files are written under another name, forced to disk and renamed; then its line is appended. A job is done
    when its line is there: what a process left behind that ended in between is written again.

    Args:
        folder: made if it is not there.

    Raises:
        GraphError: another process has it, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock, Timeout

        self.folder = folder
        self.results = folder / RESULTS
        self._file: int | None = None
        self._forced = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / LOCK)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise GraphError(
                [f"{folder}: another tessera batch works there; wait for it, or choose another folder"]
            ) from error
        except OSError as error:
            raise GraphError([f"{folder}: {error.strerror or error}; expected a folder for the results"]) from error

    def started(self) -> float:
        """Return when the batch was started for the first time, which dates in file names are filled in with."""
        path = self.folder / STARTED
        try:
            return float(json.loads(path.read_text())["started"])
        except (OSError, ValueError, KeyError, TypeError):
            now = time.time()
            replace(path, json.dumps({"started": now}).encode())
            return now

    def recover(self, queue: JobQueue) -> int:
        """Note in the queue what is done, and leave nothing in the folder of what is not.

        Lines of jobs that failed, lines whose files are gone, a line that was not written to its end, and jobs that
        were written to one half are removed; the jobs are run again.

        Returns:
            How many jobs of the queue are done.
        """
        for path in self.folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(path, ignore_errors=True)
        done, changed = 0, False
        kept = self.folder / f"{PARTIAL}{RESULTS}"
        with kept.open("wb") as file:
            for content, line in self._lines():
                if (
                    line is not None
                    and self._is_whole(line)
                    and (queue.finish(line["job"]) or not queue.has(line["job"]))
                ):
                    done += queue.has(line["job"])
                    file.write(content)
                else:
                    changed = True
            file.flush()
            os.fsync(file.fileno())
        if changed:
            os.replace(kept, self.results)
            _sync(self.folder)
        else:
            kept.unlink()
        return done

    def commit(self, results: Sequence[Result]) -> None:
        """Keep what jobs made. Several together force the disk once instead of once each.

        Raises:
            OSError: the folder cannot be written; none of them is kept.
        """
        written = [result for result in results if result.files]
        if written:
            self._write(written)
        self._append([result.told for result in results])

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what is told of each job that has ended, in the order in which they did."""
        return (line for _, line in self._lines() if line is not None)

    def close(self) -> None:
        """Let another process have the folder."""
        if self._file is not None:
            with suppress(OSError):
                os.fsync(self._file)
            os.close(self._file)
        self._lock.release()

    def _write(self, results: Sequence[Result]) -> None:
        partials = [self.folder / f"{PARTIAL}{result.key}" for result in results]
        try:
            files = [path for partial, result in zip(partials, results, strict=True) for path in result.write(partial)]
            _force(files)
            for partial, result in zip(partials, results, strict=True):
                # Left by a process that ended before it could append the line.
                shutil.rmtree(self.folder / result.key, ignore_errors=True)
                os.rename(partial, self.folder / result.key)
            _sync(self.folder)
        except BaseException:
            for partial in partials:
                shutil.rmtree(partial, ignore_errors=True)
            raise

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if self._file is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.open(self.results, flags, 0o644)
        content = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, content)
            if written < len(content):
                # A full disk may take the beginning; the rest then fails with the reason.
                os.write(self._file, content[written:])
            self._force_lines()
        except BaseException:
            os.ftruncate(self._file, size)
            raise

    def _force_lines(self) -> None:
        """Force the lines to disk, once in a while: a line that a power failure takes is a job that is run again."""
        if self._file is not None and time.monotonic() - self._forced > FORCE_SECONDS:
            os.fsync(self._file)
            self._forced = time.monotonic()

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
        """Yield each line, and what it says; None where it is no line of a job."""
        if not self.results.exists():
            return
        with self.results.open("rb") as file:
            for content in file:
                yield content, _read(content)

    def _is_whole(self, line: Mapping[str, Any]) -> bool:
        return line.get("error") is None and all((self.folder / name).is_file() for name in line["files"])


def _read(content: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(content) if content.endswith(b"\n") else None
    except ValueError:
        return None
    right = isinstance(line, dict) and isinstance(line.get("job"), str) and isinstance(line.get("files"), list)
    return line if right else None


def _force(files: Sequence[Path]) -> None:
    """Force files to disk, several at a time: the disk writes them together."""
    if len(files) == 1:
        _force_file(files[0])
        return
    with ThreadPoolExecutor(min(len(files), MOST_THREADS)) as threads:
        list(threads.map(_force_file, files))


def _force_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """Force the names in a folder to disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
