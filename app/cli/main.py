"""The command line: `tessera run`, `check`, `batch`, `nodes`, `import`, `params` and `serve`.

Exit codes: 0 done; 2 the input is wrong; 130 stopped by Ctrl-C, 143 by SIGTERM; 1 anything else. Errors are single
lines on standard error.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ...host.errors import GraphError, escaped, first, one_line
from . import batch, check, import_request, nodes, params, run, serve, streams
from .arguments import BAD_INPUT, DONE, FAILED, STOPPED, Parser, fail, folders, graph

log = logging.getLogger(__name__)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f"tessera {version()}")
        raise SystemExit(DONE)


class _Escaped(logging.Formatter):
    """Messages name files and what is in them; tracebacks behind them keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging gives it
        """Return the line of a message."""
        return escaped(super().formatMessage(record))


def version() -> str:
    """Return the version that is installed, or else that of the source tree."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("tessera-nodes")
    except PackageNotFoundError:
        return _source_version(Path(__file__).parents[2] / "pyproject.toml")


def _source_version(project: Path) -> str:
    # Python 3.10 has no reader of TOML.
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    found = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    return f"{found[1]} (not installed)" if found else "of unknown version (not installed)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    streams.prepare()
    try:
        return _run(arguments)
    finally:
        streams.finish()


def _run(arguments: Sequence[str] | None) -> int:
    """Run a command; whatever it raises is told in lines."""
    try:
        options = _parser().parse_args(arguments)
        _quiet(options.verbose)
        code = options.command(options)
        sys.stdout.flush()
        return code
    except GraphError as error:
        log.debug("the cause", exc_info=error)
        return fail(BAD_INPUT, *first(error.lines))
    except KeyboardInterrupt:
        return fail(STOPPED, "stopped")
    except BrokenPipeError:
        return FAILED  # Whoever read the output has gone, and needs no more.
    except OSError as error:
        log.debug("the cause", exc_info=error)
        return fail(FAILED, f"{error.filename or 'standard output'}: {error.strerror or error}")
    except Exception as error:
        log.debug("the cause", exc_info=error)
        return fail(
            FAILED, one_line(f"{type(error).__name__}: {error}; run again with --debug to see where it comes from")
        )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="tessera", description="Run ComfyUI workflows without ComfyUI.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run.declare(commands, [graph(), folders()])
    check.declare(commands, [graph(), folders()])
    batch.declare(commands, [folders()])
    nodes.declare(commands, [folders()])
    import_request.declare(commands, [folders()])
    params.declare(commands)
    serve.declare(commands, [folders()])
    return parser


def _quiet(verbose: bool) -> None:
    """Let libraries log only where someone watches, and never download anything."""
    # A log that cannot be written is no reason to print a traceback.
    logging.raiseExceptions = False
    level = logging.INFO if verbose else logging.WARNING if sys.stderr.isatty() else logging.ERROR
    handler = logging.StreamHandler()
    handler.setFormatter(_Escaped("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    if verbose:
        logging.getLogger(__name__.partition(".")[0]).setLevel(logging.DEBUG)
    else:
        import warnings

        warnings.simplefilter("ignore")
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ["HF_HUB_OFFLINE"] = "1"


if __name__ == "__main__":
    sys.exit(main())
