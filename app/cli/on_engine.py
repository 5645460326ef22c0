"""`tessera run --engine URL` and `tessera check --engine URL`: the workflow on a ComfyUI server."""

from __future__ import annotations

import argparse
import time
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING

from ...host.errors import GraphError, NodeError, first
from .arguments import BAD_INPUT, DONE, FAILED, fail
from .assignments import parse
from .signals import Signals, ended
from .streams import tell

if TYPE_CHECKING:
    from ..api import Results
    from ..engines.engine import Engine, Task

ENGINE_HELP = "embedded (the default), or a ComfyUI server that runs it, with its nodes and models: http://HOST:PORT"


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the option to a command."""
    parser.add_argument("--engine", metavar="URL", help=ENGINE_HELP)


def check(options: argparse.Namespace) -> int:
    """Validate a workflow with the nodes of a server, and return the exit code."""
    from ..engines.errors import EngineLost

    try:
        with _opened(options) as engine:
            task = _task(engine, options)
    except EngineLost as error:
        return fail(FAILED, error.line)
    nodes, outputs = len(task.prompt), ", ".join(task.outputs)
    tell(f"{options.workflow}: {nodes} nodes, nothing wrong on {engine.name}; outputs: {outputs}")
    return DONE


def run(options: argparse.Namespace, signals: Signals) -> tuple[int, list[str], Results | None]:
    """Run a workflow on a server and save its files here.

    Returns:
        The exit code; errors; what was made, or None where that is nothing.
    """
    from ..api import Results
    from ..engines.errors import EngineLost
    from ..engines.remote import save
    from .progress_bar import ProgressDisplay

    started = time.monotonic()
    try:
        with _opened(options) as engine:
            task = _task(engine, options)
            with ProgressDisplay(task.prompt, len(task.prompt)) as display:
                made = engine.run(task, display.update)
        paths, outputs = save(made, options.output_dir or "output")
    except GraphError as error:
        return BAD_INPUT, first(error.lines), None
    except EngineLost as error:
        return FAILED, [error.line], None
    except NodeError as error:
        return BAD_INPUT if error.bad_input else FAILED, [error.line], None
    except KeyboardInterrupt as stop:
        code, word = ended(stop)
        return code, [word], None
    finally:
        signals.let_report()
    return DONE, [], Results(paths, outputs, round(time.monotonic() - started, 3))


def _opened(options: argparse.Namespace) -> AbstractContextManager[Engine]:
    from ..engines.server import ServerEngine

    if getattr(options, "device", None) or getattr(options, "dtype", None) or options.models_dir:
        raise GraphError(["--device, --dtype and --models-dir are the server's own with --engine URL; leave them out"])
    if options.replace or getattr(options, "any_model", False):
        raise GraphError(["--replace and --any-model need the nodes of this host; leave them out with --engine URL"])
    return closing(ServerEngine(options.engine))


def _task(engine: Engine, options: argparse.Namespace) -> Task:
    from ...host.graph.workflow import read
    from ..engines.remote import task_of

    return task_of(engine, read(options.workflow), parse(options.set), options.input_dir or "input")
