"""`tessera batch`: run a workflow once for each row of a table."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...host.errors import GraphError
from ..engines.address import EMBEDDED, is_server
from .arguments import DONE, FAILED, STOPPED, Parser, fail
from .assignments import parse

if TYPE_CHECKING:
    from ..batch.batch import Batch, Options
    from ..batch.summary import Summary


def declare(commands: Any, parents: list[Parser]) -> None:
    """Add the command."""
    batch = commands.add_parser(
        "batch", parents=parents, help="run a workflow once for each row of a table, or go on with that"
    )
    batch.add_argument("workflow", metavar="WORKFLOW", help="the workflow; left out with --service")
    batch.add_argument(
        "table",
        metavar="TABLE",
        nargs="?",
        help="CSV, JSON or Parquet, whose columns are NODE.INPUT, the title of a node, or an input that one "
        "node has; or a folder of images",
    )
    batch.add_argument("--output-dir", metavar="DIR", default="batch", help="where results are kept (default: batch)")
    batch.add_argument(
        "--set", metavar="NODE.INPUT=VALUE", action="append", default=[], help="change a value for every row"
    )
    batch.add_argument("--column", metavar="NAME", help="what the images of a folder are for, such as 7.image")
    _declare_workers(batch)
    batch.add_argument("--retries", type=int, default=2, metavar="N", help="try a failed job again (default: 2)")
    batch.add_argument("--skip-bad", action="store_true", help="go on without rows that are wrong")
    batch.add_argument("--dry-run", action="store_true", help="check every row and run nothing")
    batch.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    batch.add_argument("--service", metavar="SERVICE", help="rows are request bodies of a service (tessera params)")
    batch.add_argument("--model", metavar="NAME", help="the checkpoint for requests (default: the one they name)")
    batch.add_argument("--strict", action="store_true", help="refuse requests that would only be approximated")
    batch.add_argument(
        "--image", metavar="NAME=FILE", action="append", default=[], help="image file for a name or link"
    )
    batch.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    batch.add_argument("--dtype", help="fp16, bf16 or fp32 (default: what suits the model and the device)")
    batch.add_argument("--webhook", metavar="URL", help="where one JSON report is sent when the batch has ended")
    batch.add_argument("--track-id", metavar="ID", help="included in that report")
    batch.add_argument("--webhook-private", action="store_true", help="allow a webhook whose address is not public")
    batch.set_defaults(command=command)


def _declare_workers(batch: argparse.ArgumentParser) -> None:
    where = batch.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, metavar="N", help="jobs at a time on this machine, by Ray (default: 1)")
    where.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster; auto finds the one of this machine")
    batch.add_argument(
        "--engine",
        metavar="URL,...",
        default=EMBEDDED,
        help="embedded (the default), or ComfyUI servers with a comma between them, one worker each",
    )
    batch.add_argument("--worker-cpus", type=float, metavar="N", help="processors that a worker takes (default: 1)")
    batch.add_argument(
        "--worker-gpus",
        type=float,
        metavar="N",
        help="GPUs that a worker takes, such as 0.5 (default: 1 where any are)",
    )


def command(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    from ..batch.batch import opened
    from ..engines.errors import EngineLost
    from .run import _webhook

    started = time.monotonic()
    hook = _webhook(options)
    asked = options_of(options)
    lines: list[str] = []
    try:
        with opened(asked, dry=options.dry_run) as batch:
            for line in batch.bad:
                print(line, file=sys.stderr)
            if options.dry_run:
                return _tell_plan(batch, options.json)
            code, lines = _run(batch)
            report = _end(batch, started, lines)
    except EngineLost as error:
        return fail(FAILED, error.line)
    except OSError as error:
        return fail(FAILED, _disk(error))
    _print(report, options)
    if hook is not None and (wrong := hook.send(report)):
        lines.append(wrong)
        code = code or FAILED
    return fail(code, *lines)


def options_of(options: argparse.Namespace) -> Options:
    """Return what the command line asks for.

    Raises:
        GraphError: options that do not go together, or have no such value.
    """
    from ..batch.batch import Options
    from .import_request import named_files

    workflow, table = options.workflow, options.table
    if options.service and table is None:
        workflow, table = None, workflow
    if table is None or (options.service and workflow):
        raise GraphError(["expected WORKFLOW and TABLE, or --service SERVICE and the table of its requests alone"])
    if not options.service and (options.model or options.strict or options.image):
        raise GraphError(["--model, --strict and --image belong to --service; add it, or leave them out"])
    for name, least in (("retries", 0), ("workers", 1), ("worker_cpus", 0), ("worker_gpus", 0)):
        value = getattr(options, name)
        if value is not None and not value >= least:
            raise GraphError([f"--{name.replace('_', '-')}: found {value:g}; expected at least {least}"])
    engines = [name.strip() for name in options.engine.split(",") if name.strip()] or [EMBEDDED]
    if len(engines) > 1 and not all(map(is_server, engines)):
        raise GraphError([f"--engine {options.engine}: expected embedded alone, or servers"])
    return Options(
        workflow=workflow,
        table=Path(table),
        output_dir=Path(options.output_dir),
        input_dir=Path(options.input_dir or "input"),
        settings=parse(options.set),
        service=options.service or "",
        choices={"model": options.model, "strict": options.strict} if options.service else {},
        images=named_files(options.image),
        column=options.column,
        engines=engines,
        workers=options.workers,
        ray=options.ray,
        worker_cpus=options.worker_cpus,
        worker_gpus=options.worker_gpus,
        retries=options.retries,
        skip_bad=options.skip_bad,
        engine_options={"models_dir": options.models_dir, "device": options.device, "dtype": options.dtype},
    )


def _run(batch: Batch) -> tuple[int, list[str]]:
    """Run what is left; return the exit code, and why not everything was run."""
    from ..batch.pool import PoolLost

    bar = _bar(batch.total, batch.done_before)
    failed = 0

    def tell(done: bool) -> None:
        nonlocal failed
        failed += not done
        if bar is not None:
            bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
            bar.update()

    again = "start the same command again for the rest"
    try:
        batch.run(tell)
    except KeyboardInterrupt:
        return STOPPED, [f"stopped; {again}"]
    except PoolLost as error:
        return FAILED, [f"{error.line}; {again}"]
    except OSError as error:
        return FAILED, [f"{_disk(error)}; {again}"]
    finally:
        if bar is not None:
            bar.close()
    return (FAILED if failed else DONE), []


def _disk(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}; the results cannot be written"


def _bar(total: int, before: int) -> Any:
    if not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    return tqdm(total=total, initial=before, unit="job", smoothing=0.05, file=sys.stderr, dynamic_ncols=True)


def _end(batch: Batch, started: float, lines: list[str]) -> dict[str, Any]:
    """Draw the contact sheet, and return the report of the batch."""
    from ..batch.summary import draw_sheet, summarize

    assert batch.journal is not None
    summary: Summary = summarize(batch.journal, batch.queue.has)
    sheet = None
    try:
        # What stopped a batch, such as a full disk, would stop this, too.
        sheet = None if lines else draw_sheet(summary, batch.journal.folder)
    except OSError as error:
        lines.append(f"no contact sheet: {error.strerror or error}")
    return {
        "status": "failed" if lines or summary.failed else "success",
        "jobs": batch.total,
        "done": summary.done,
        "failed": summary.failed,
        "done_before": batch.done_before,
        "bad_rows": batch.bad_count,
        "seconds": round(time.monotonic() - started, 3),
        "job_seconds": round(summary.seconds, 3),
        "results": str(batch.journal.results),
        "contact_sheet": str(sheet) if sheet else None,
        "errors": [*lines, *summary.errors],
    }


def _print(report: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(report))
        return
    parts = [f"{report['done']} of {report['jobs']} jobs done"]
    parts += [
        f"{report[name]} {words}"
        for name, words in (("done_before", "of them before"), ("failed", "failed"))
        if report[name]
    ]
    parts += [f"{report['bad_rows']} rows left out"] if report["bad_rows"] else []
    print(f"{', '.join(parts)}; {report['seconds']:.1f} s")
    print(report["results"])
    if report["contact_sheet"]:
        print(report["contact_sheet"])
    for line in report["errors"]:
        if line.startswith("line "):
            print(line, file=sys.stderr)


def _tell_plan(batch: Batch, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"jobs": batch.total, "bad_rows": batch.bad_count, "errors": batch.bad}))
    else:
        print(f"{batch.total} jobs; nothing was run")
    return DONE
