"""`tessera run`: run a workflow, print the saved files, report to a webhook."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...files.writing import recorded
from ...host.errors import GraphError, NodeError, first
from ...host.folder_paths import get_output_directory, is_within_directory
from ..api import collect, execute, prepare
from ..engines.address import is_server
from . import on_engine
from .arguments import BAD_INPUT, DONE, FAILED, Parser, fail, folders_of, replacing
from .assignments import parse
from .progress_bar import ProgressDisplay
from .signals import Signals, ended, handled
from .streams import tell

if TYPE_CHECKING:
    from ..api import Results
    from .webhook import Webhook

log = logging.getLogger(__name__)


def declare(commands: Any, parents: list[Parser]) -> None:
    """Add the command."""
    run = commands.add_parser("run", parents=parents, help="run a workflow and print the files it saved")
    run.add_argument("--output-dir", metavar="DIR", help="where results are saved (default: output)")
    run.add_argument(
        "--json",
        action="store_true",
        help='print one JSON object: {"outputs": {NODE: {"images": [{"path": ...}], "text": [...], OUTPUT: [...]}}, '
        '"seconds": ...}, with the files, previews, texts and numbers of every node that ran',
    )
    run.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    run.add_argument("--dtype", help="fp16, bf16 or fp32 (default: what suits the model and the device)")
    run.add_argument("--webhook", metavar="URL", help="where one JSON report is sent when the run has ended")
    run.add_argument("--track-id", metavar="ID", help="included in that report")
    run.add_argument("--webhook-private", action="store_true", help="allow a webhook whose address is not public")
    replacing(run)
    on_engine.declare(run)
    run.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    hook = _webhook(options)
    with handled() as signals, recorded() as files:
        run = on_engine.run if is_server(options.engine) else _run
        code, errors, made = run(options, signals)
        made = _with_files(made, files) if made is not None and errors else made
        unprinted = None if made is None else _print(made, options.json)
        unsent = _send(hook, errors, made)
    if errors or unsent or unprinted is not None:
        return fail(code or FAILED, *errors, *(unprinted or []), *unsent)
    return code


def _run(options: argparse.Namespace, signals: Signals) -> tuple[int, list[str], Results | None]:
    """Prepare and run the graph here.

    Returns:
        The exit code; errors; what was made until an error or a signal, or None where the run did not begin.
    """
    started, ready = time.monotonic(), None
    code, errors = DONE, []
    try:
        chosen = {"device": options.device, "dtype": options.dtype, "replace": options.replace} | folders_of(options)
        ready = prepare(options.workflow, parse(options.set), **chosen)
        with signals.stop_at_next_step(), ProgressDisplay(ready.prompt, len(ready.needed)) as display:
            execute(ready, display.update)
    except GraphError as error:
        log.debug("the cause", exc_info=error)
        return BAD_INPUT, first(error.lines), None
    except NodeError as error:
        code, errors = BAD_INPUT if error.bad_input else FAILED, [error.line]
    except KeyboardInterrupt as stop:
        code, word = ended(stop)
        errors = [f"{word}; what was saved before stays" if ready else word]
    finally:
        signals.let_report()
    return code, errors, collect(ready, started) if ready else None


def _with_files(made: Results, files: Sequence[Path]) -> Results:
    """Return results that name as well what a node saved before it failed or was stopped."""
    known, folder = set(made.paths), get_output_directory()
    others = [str(path) for path in files if str(path) not in known and is_within_directory(folder, str(path))]
    return replace(made, paths=[*made.paths, *others])


def _print(made: Results, as_json: bool) -> list[str] | None:
    """Print what was made.

    Returns:
        None when that was done. Else why not, and the files that were saved all the same; nothing where whoever read
        the output has gone.
    """
    lines = [json.dumps({"outputs": made.outputs, "seconds": made.seconds}, allow_nan=False)] if as_json else made.paths
    try:
        tell(*lines)
    except BrokenPipeError:
        return []
    except OSError as error:
        return [f"standard output: {error.strerror or error}; these files were saved:", *made.paths]
    return None


def _webhook(options: argparse.Namespace) -> Webhook | None:
    """Return where the run is reported to, checked before anything slow begins."""
    if options.webhook is None:
        if options.track_id is not None or options.webhook_private:
            raise GraphError(["--track-id and --webhook-private belong to --webhook URL; add it, or leave them out"])
        return None
    from .webhook import Webhook

    hook = Webhook(options.webhook, options.track_id, options.webhook_private)
    hook.check()
    return hook


def _send(hook: Webhook | None, errors: Sequence[str], made: Results | None = None) -> list[str]:
    """Report the end of a run; `output` lists the saved files.

    Returns:
        What went wrong with the report.
    """
    if hook is None:
        return []
    report: dict[str, Any] = {"status": "failed" if errors else "success", "errors": list(errors)}
    report |= {"output": made.paths, "outputs": made.outputs} if made is not None else {"output": [], "outputs": {}}
    wrong = hook.send(report | {"seconds": None if made is None else made.seconds})
    return [wrong] if wrong else []
