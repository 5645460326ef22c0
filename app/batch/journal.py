"""The results of a batch on disk: a folder a job, and one line of `results.jsonl` that says it is complete."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
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

FORCE_SECONDS = 1.0
"""Between two times at which the lines are forced to disk; the files of a job are, before it has a line."""


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

    def commit(self, line: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Keep what a job made.

        Args:
            line: what is told of it; "files" is added.
            files: contents by relative path; none of a job that failed.

        Raises:
            OSError: the folder cannot be written; nothing of the job is kept.
        """
        key = str(line["job"])
        if files:
            self._write(key, files)
        self._append({**line, "files": [f"{key}/{name}" for name in files]})

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

    def _write(self, key: str, files: Mapping[str, bytes]) -> None:
        partial, final = self.folder / f"{PARTIAL}{key}", self.folder / key
        shutil.rmtree(partial, ignore_errors=True)
        try:
            for name, content in files.items():
                path = partial / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            # Left by a process that ended before it could append the line.
            shutil.rmtree(final, ignore_errors=True)
            os.rename(partial, final)
            _sync(self.folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _append(self, line: Mapping[str, Any]) -> None:
        if self._file is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.open(self.results, flags, 0o644)
        content = (json.dumps(line, allow_nan=False) + "\n").encode()
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, content)
            if written < len(content):
                # A full disk may take the beginning; the rest then fails with the reason.
                os.write(self._file, content[written:])
            self._force()
        except BaseException:
            os.ftruncate(self._file, size)
            raise

    def _force(self) -> None:
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


def _sync(folder: Path) -> None:
    """Force the names in a folder to disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
