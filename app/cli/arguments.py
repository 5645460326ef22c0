"""What the commands have in common: how arguments are parsed, and how a command ends."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from .streams import complain

DONE, FAILED, BAD_INPUT, STOPPED, TERMINATED = 0, 1, 2, 130, 143
"""Exit codes; the last two are those of a shell for SIGINT and SIGTERM."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit."""
        complain(f"{self.prog}: {message}; see {self.prog} --help")
        raise SystemExit(BAD_INPUT)


def fail(code: int, *lines: str) -> int:
    """Print lines on standard error and return the exit code."""
    complain(*lines)
    return code


def folders() -> Parser:
    """Return the arguments of every command that knows nodes."""
    parser = Parser(add_help=False)
    parser.add_argument("--models-dir", metavar="DIR", help="where models are (default: models)")
    parser.add_argument("--input-dir", metavar="DIR", help="where images are loaded from (default: input)")
    parser.add_argument(
        "--verbose", "--debug", action="store_true", help="log more to standard error, with the causes of errors"
    )
    return parser


def graph() -> Parser:
    """Return the arguments of every command that reads a workflow."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "workflow",
        metavar="WORKFLOW",
        help="API or UI format JSON, or an image (PNG, WebP, JPEG, AVIF) or latents that carry either",
    )
    parser.add_argument(
        "--set",
        metavar="NODE.INPUT=VALUE",
        action="append",
        default=[],
        help='change a value, in JSON or as plain text: --set 3.seed=7 --set 6.text="green moss"',
    )
    return parser


def replacing(parser: Parser) -> None:
    """Add the argument that replaces nodes of other packs."""
    parser.add_argument(
        "--replace",
        action="store_const",
        const=_tell,
        help="replace nodes of ComfyUI-seamless-tiling, ComfyUI-NAG and ComfyUI_IPAdapter_plus, leave out other nodes "
        "that are not known with what depends on them, and say so on standard error",
    )


def _tell(line: str) -> None:
    complain(line)


def folders_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the folders that were chosen, by their names in `tessera.run`."""
    return {name: getattr(options, name, None) for name in ("models_dir", "input_dir", "output_dir")}
