"""What the commands have in common: how arguments are parsed, and how a command ends."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130
"""Exit codes."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(BAD_INPUT)


def fail(code: int, *lines: str) -> int:
    """Print lines on standard error and return the exit code."""
    for line in lines:
        print(line, file=sys.stderr)
    return code


def folders() -> Parser:
    """Return the arguments of every command that knows nodes."""
    parser = Parser(add_help=False)
    parser.add_argument("--models-dir", metavar="DIR", help="where models are (default: models)")
    parser.add_argument("--input-dir", metavar="DIR", help="where images are loaded from (default: input)")
    parser.add_argument("--verbose", action="store_true", help="log more to standard error, with tracebacks")
    return parser


def graph() -> Parser:
    """Return the arguments of every command that reads a workflow."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "workflow",
        metavar="WORKFLOW",
        help="API or UI format JSON, or an image (PNG, WebP, JPEG, AVIF) that carries either",
    )
    parser.add_argument(
        "--set",
        metavar="NODE.INPUT=VALUE",
        action="append",
        default=[],
        help='change a value, in JSON or as plain text: --set 3.seed=7 --set 6.text="green moss"',
    )
    return parser


def folders_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the folders that were chosen, by their names in `tessera.run`."""
    return {name: getattr(options, name, None) for name in ("models_dir", "input_dir", "output_dir")}
