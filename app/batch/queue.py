"""What is still to be done, in a file: the memory that it takes does not grow with the number of jobs."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

WAITING, RUNNING, DONE = range(3)

TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, key TEXT UNIQUE, line INTEGER, model TEXT, content TEXT,
    state INTEGER DEFAULT 0, tries INTEGER DEFAULT 0
);
CREATE INDEX next_of_model ON jobs (state, model, number);
CREATE INDEX next ON jobs (state, number);
"""


@dataclass(frozen=True)
class Waiting:
    """A job as it waits.

    Attributes:
        number: its place in the table.
        key: names its results.
        line: of the table.
        model: equal for jobs that load the same models.
        content: what the planner makes the job of again.
        tries: how often it has been begun.
    """

    number: int
    key: str
    line: int
    model: str
    content: str
    tries: int


class JobQueue:
    """The jobs of one table. It lives as long as the process: what is done is in the journal.

    Args:
        path: a file that is made anew, and removed at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._base = sqlite3.connect(path, isolation_level=None)
        for statement in TABLES.split(";"):
            self._execute(statement)

    def add(self, key: str, line: int, model: str, content: str) -> int | None:
        """Add a job; return the line that has the same one already."""
        try:
            self._execute(
                "INSERT INTO jobs (key, line, model, content) VALUES (?, ?, ?, ?)", (key, line, model, content)
            )
        except sqlite3.IntegrityError:
            return self._execute("SELECT line FROM jobs WHERE key = ?", (key,)).fetchone()[0]
        return None

    def _execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        try:
            return self._base.execute(statement, values)
        except sqlite3.OperationalError as error:
            # SQLite has errors of its own for what the system says of the disk.
            number = errno.ENOSPC if "full" in str(error) else errno.EIO
            raise OSError(number, os.strerror(number), str(self.path)) from error

    def begin(self) -> None:
        """Begin to add many."""
        self._execute("BEGIN")

    def end(self) -> None:
        """End what `begin` began."""
        self._execute("COMMIT")

    def count(self, state: int | None = None) -> int:
        """Return how many jobs there are, in a state or at all."""
        where = "" if state is None else f" WHERE state = {state:d}"
        return self._execute(f"SELECT count(*) FROM jobs{where}").fetchone()[0]

    def finish(self, key: str) -> bool:
        """Note that a job is done; return whether it was there and not done."""
        return self._execute("UPDATE jobs SET state = 2 WHERE key = ? AND state < 2", (key,)).rowcount == 1

    def has(self, key: str) -> bool:
        """Return whether a job is among them."""
        return self._execute("SELECT 1 FROM jobs WHERE key = ?", (key,)).fetchone() is not None

    def take(self, model: str | None, in_use: Collection[str] = ()) -> Waiting | None:
        """Return the next job for a worker, which is running from now on.

        That is one of the models that it has loaded; else one of models that nobody has; else the next.
        """
        asks = [("model = ?", [model])] if model is not None else []
        asks += [(f"model NOT IN ({', '.join('?' * len(in_use))})", list(in_use)), ("1", [])]
        for condition, values in asks:
            found = self._execute(
                "SELECT number, key, line, model, content, tries FROM jobs "
                f"WHERE state = 0 AND {condition} ORDER BY number LIMIT 1",
                values,
            ).fetchone()
            if found is not None:
                self._execute("UPDATE jobs SET state = 1, tries = tries + 1 WHERE number = ?", (found[0],))
                number, key, line, of_model, content, tries = found
                return Waiting(number, key, line, of_model, content, tries + 1)
        return None

    def give_back(self, number: int, counted: bool) -> None:
        """Let a job wait again.

        Args:
            counted: whether the try counts, as it does unless the job was not to blame.
        """
        self._execute("UPDATE jobs SET state = 0, tries = tries - ? WHERE number = ?", (not counted, number))

    def close(self) -> None:
        """Remove the file."""
        self._base.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
