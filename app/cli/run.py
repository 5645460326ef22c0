"""`tessera run`: run a workflow, print the saved files, report to a webhook."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...host.errors import GraphError, NodeError
from ..engines.address import is_server
from . import on_engine
from .arguments import BAD_INPUT, DONE, FAILED, STOPPED, Parser, fail, folders_of
from .assignments import parse

if TYPE_CHECKING:
    from ...host.graph.execution import Run
    from ..api import Results
    from .webhook import Webhook


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
    on_engine.declare(run)
    run.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    from ..api import collect, prepare

    started = time.monotonic()
    hook = _webhook(options)
    if is_server(options.engine):
        return _on_server(options, hook)
    try:
        chosen = {"device": options.device, "dtype": options.dtype} | folders_of(options)
        ready = prepare(options.workflow, parse(options.set), **chosen)
    except GraphError as error:
        raise GraphError([*error.lines, *_send(hook, error.lines)]) from error
    code, errors = _execute(ready)
    made = collect(ready, started)
    _print(made, options.json)
    unsent = _send(hook, errors, made)
    return fail(code or FAILED, *errors, *unsent) if errors or unsent else code


def _on_server(options: argparse.Namespace, hook: Webhook | None) -> int:
    try:
        code, errors, made = on_engine.run(options)
    except GraphError as error:
        raise GraphError([*error.lines, *_send(hook, error.lines)]) from error
    if made is not None:
        _print(made, options.json)
    unsent = _send(hook, errors, made)
    return fail(code or FAILED, *errors, *unsent) if errors or unsent else code


def _execute(ready: Run) -> tuple[int, list[str]]:
    """Run the graph; what was made until an error or Ctrl-C stays in `ready`."""
    from ..api import execute
    from .progress_bar import ProgressDisplay, stop_on_ctrl_c

    try:
        with stop_on_ctrl_c(), ProgressDisplay(ready.prompt, len(ready.needed)) as display:
            execute(ready, display.update)
    except NodeError as error:
        return BAD_INPUT if error.bad_input else FAILED, [error.line]
    except KeyboardInterrupt:
        return STOPPED, ["stopped; what was saved before stays"]
    return DONE, []


def _print(made: Results, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"outputs": made.outputs, "seconds": made.seconds}, allow_nan=False))
    else:
        for path in made.paths:
            print(path)


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
    report |= {"output": made.paths, "outputs": made.outputs} if made else {"output": [], "outputs": {}}
    wrong = hook.send(report | {"seconds": made.seconds if made else None})
    return [wrong] if wrong else []
