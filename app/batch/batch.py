"""A batch from its table to its summary: what `tessera batch` does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...files.temporary import short_lived
from ...host.errors import MOST_LINES, GraphError, listed
from ...host.graph.documents import Workflow
from ...host.graph.workflow import read, to_prompt
from ..assignments import apply
from ..engines.address import EMBEDDED, is_server
from ..engines.choose import open_engine
from ..engines.engine import Engine, input_files, takes_uploads
from .coordinator import Coordinator
from .journal import Journal
from .plan import Planner
from .pool import LoopPool, Pool
from .queue import JobQueue
from .requests import RequestPlanner
from .tables import Row, kind, read_table
from .worker import Worker

log = logging.getLogger(__name__)

MOST_TOLD = MOST_LINES - 2
"""Wrong rows that are told one by one, so that what is said of all is shown as well."""

MOST_WRONG = 1000
"""Wrong rows after which no more are checked: a table that is wrong throughout may have millions."""

QUEUE = ".jobs.sqlite"


@dataclass(frozen=True)
class Options:
    """What a batch is asked to do.

    Attributes:
        workflow: the file; None for requests of a service.
        table: the file or folder of rows.
        settings: changes for every row, by NODE.INPUT.
        service: whose request bodies the rows are; "" for columns.
        choices: for the importer of requests.
        images: files for names in requests.
        column: what the files of a folder are for.
        engines: "embedded", or the addresses of servers.
        workers: how many jobs run at a time; None for as many as there are servers, or the cluster has room for.
        ray: the address of a running cluster, such as "auto"; None for this machine.
        worker_cpus, worker_gpus: what a worker takes of a cluster's resources; None chooses.
        retries: how often a failed job is tried again.
        skip_bad: go on without rows that are wrong.
        engine_options: models_dir, device and dtype of the embedded engine.
    """

    workflow: str | None
    table: Path
    output_dir: Path
    input_dir: Path = Path("input")
    settings: Mapping[str, Any] = field(default_factory=dict)
    service: str = ""
    choices: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    column: str | None = None
    engines: Sequence[str] = (EMBEDDED,)
    workers: int | None = None
    ray: str | None = None
    worker_cpus: float | None = None
    worker_gpus: float | None = None
    retries: int = 2
    skip_bad: bool = False
    engine_options: Mapping[str, Any] = field(default_factory=dict)


class Batch:
    """A batch whose rows are checked, and which can be run.

    Args:
        journal: None only counts (`--dry-run`).
        queue_path: where the queue is while the batch lasts.
        engine: to check with, and to run on in this process; the first of the options by default.

    Raises:
        GraphError: the workflow, the table or a row is wrong; nothing ran.
        EngineLost: the server of the engine cannot be reached.
    """

    def __init__(
        self, options: Options, journal: Journal | None, queue_path: Path, engine: Engine | None = None
    ) -> None:
        self.options, self.journal = options, journal
        self.bad_count = 0
        self._wrong: dict[str, tuple[str, int]] = {}
        self._untold = 0
        engine_options = {**options.engine_options, "input_dir": str(options.input_dir)}
        name = options.engines[0]
        self.engine = engine or open_engine(name, **_only_embedded(name, engine_options))
        self.queue = JobQueue(queue_path)
        self.workflow: Workflow | None = None
        try:
            self.jobs = self._planner(time.localtime(journal.started() if journal else None))
            self._fill()
            self.done_before = journal.recover(self.queue) if journal else 0
        except BaseException:
            self.close()
            raise
        self.total = self.queue.count()

    def _planner(self, now: time.struct_time) -> Planner | RequestPlanner:
        options = self.options
        if options.service:
            return RequestPlanner(self.engine, options.service, options.table, now, options.images, options.choices)
        if options.workflow is None:
            raise GraphError(["expected WORKFLOW and TABLE, or --service and a table of requests"])
        found = read(options.workflow)
        info = self.engine.object_info()
        found.prompt = to_prompt(found, info, now)
        self.workflow = apply(options.settings, found, info)
        table_dir = options.table if options.table.is_dir() else options.table.parent
        return Planner(self.engine, self.workflow, options.input_dir, table_dir)

    def _column(self) -> str | None:
        """Return what the files of a folder are for: the one input that takes uploads, unless it is told."""
        if isinstance(self.jobs, Planner) and self.options.table.is_dir():
            return self.options.column or only_upload(self.jobs)
        return None

    def _fill(self) -> None:
        """Check every row, and queue its job.

        Raises:
            GraphError: a row is wrong and may not be left out, or there is none.
        """
        rows = 0
        self.queue.begin()
        for row in read_table(self.options.table, self._column()):
            rows += 1
            if rows == 1:
                self._check_columns(row)
            self._note(row, self._add(row))
            if self.bad_count == MOST_WRONG and not self.options.skip_bad:
                break
        self.queue.end()
        if self.bad_count and not self.options.skip_bad:
            seen = f"the first {rows}" if self.bad_count == MOST_WRONG else rows
            raise GraphError([*self.bad, f"{self.bad_count} of {seen} rows are wrong; mend them, or add --skip-bad"])
        if not self.queue.count():
            what = "all rows are wrong" if rows else "found no rows"
            raise GraphError([*self.bad, f"{self.options.table}: {what}; expected one row for each job"])

    def _check_columns(self, row: Row) -> None:
        """Refuse a table with a column that is wrong for every row; rows of JSON each have their own names."""
        if isinstance(self.jobs, Planner) and not row.place[1]:
            try:
                for column in row.values:
                    self.jobs.target(column)
            except GraphError as error:
                raise GraphError(f"{self.options.table}: {line}" for line in error.lines) from error

    def _place(self, row: Row) -> str:
        return f"{self.options.table}, {'row' if _is_counted(self.options.table) else 'line'} {row.line}"

    def _note(self, row: Row, wrong: list[str]) -> None:
        """Remember what is wrong with a row; what is wrong with many in the same way is told once."""
        self.bad_count += bool(wrong)
        for line in wrong:
            if line in self._wrong or len(self._wrong) < MOST_TOLD:
                first, count = self._wrong.get(line, (self._place(row), 0))
                self._wrong[line] = first, count + 1
            else:
                self._untold += 1

    @property
    def bad(self) -> list[str]:
        """What is wrong with rows, a line for each thing."""
        lines = [
            f"{place}: {line}" + (f" (and {count - 1} more)" if count > 1 else "")
            for line, (place, count) in self._wrong.items()
        ]
        return [*lines, f"{self.options.table}: {self._untold} more things are wrong"] if self._untold else lines

    def _add(self, row: Row) -> list[str]:
        """Queue the job of a row, or return what is wrong with it."""
        try:
            planned = self.jobs.plan(row)
        except GraphError as error:
            return error.lines
        same = self.queue.add(planned.key, row.line, planned.model, self.jobs.content(row, planned))
        return [] if same is None else [f"the same job as line {same}; change something, or leave it out"]

    def run(self, tell: Callable[[bool], None] = lambda done: None) -> Coordinator:
        """Run what is not done yet.

        Raises:
            PoolLost: nobody is left to run it.
            OSError: results cannot be written.
            KeyboardInterrupt: stopped; what is done stays.
        """
        if self.journal is None:
            raise ValueError("a batch without a folder cannot run")
        with closing(self._pool()) as pool:
            coordinator = Coordinator(self.queue, self.jobs, pool, self.journal, self.options.retries, tell)
            coordinator.work()
        return coordinator

    def _pool(self) -> Pool:
        from .ray_pool import is_installed, open_pool

        options = self.options
        asked = options.workers or len(options.engines)
        wants_ray = options.ray is not None or asked > 1
        if wants_ray and is_installed():
            return open_pool(options, self.workflow)
        if options.ray is not None:
            raise GraphError(["--ray needs Ray; pip install tessera-nodes[ray]"])
        if wants_ray:
            log.error("Ray is not installed (pip install tessera-nodes[ray]); running one job after the other")
        return LoopPool(Worker(self.engine, {}, self.workflow, self.engine.name))

    def close(self) -> None:
        """Let go of the engine and of the queue."""
        self.engine.close()
        self.queue.close()


@contextmanager
def opened(options: Options, dry: bool = False) -> Iterator[Batch]:
    """Open the folder of a batch and check its rows; with `dry`, nothing is written.

    Raises:
        GraphError: something is wrong, or another process runs a batch there; nothing ran.
    """
    if dry:
        with (
            short_lived() as folder,
            closing(Batch(options, None, Path(folder, QUEUE))) as batch,
        ):
            yield batch
        return
    with (
        closing(Journal(options.output_dir)) as journal,
        closing(Batch(options, journal, options.output_dir / QUEUE)) as batch,
    ):
        yield batch


def only_upload(planner: Planner) -> str:
    """Return the one input of a workflow that takes an uploaded file, as NODE.INPUT.

    Raises:
        GraphError: there is none, or more than one.
    """
    places = [
        f"{node_id}.{name}"
        for node_id, name, _ in input_files(planner.prompt, planner.info)
        if takes_uploads(planner.info[planner.prompt[node_id]["class_type"]], name)
    ]
    if len(places) == 1:
        return places[0]
    found = f"found {listed(places)}" if places else "found none"
    raise GraphError([f"a folder of images needs one Load Image in the workflow; {found}; name it with --column"])


def _is_counted(table: Path) -> bool:
    return table.is_dir() or kind(table) == "parquet"


def _only_embedded(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an engine: a server has its own models and devices."""
    return {} if is_server(name) else dict(options)


def engine_of(name: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Return an engine's name and options, as a worker opens it."""
    return name, _only_embedded(name, options.engine_options)
