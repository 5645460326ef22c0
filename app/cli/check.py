"""`tessera check`: validate a workflow."""

from __future__ import annotations

import argparse
from typing import Any

from ..engines.address import is_server
from . import on_engine
from .arguments import DONE, Parser, folders_of, replacing
from .assignments import parse
from .streams import tell


def declare(commands: Any, parents: list[Parser]) -> None:
    """Add the command."""
    check = commands.add_parser("check", parents=parents, help="validate a workflow without running it")
    check.add_argument(
        "--any-model", action="store_true", help="take every model and image that the workflow names to be there"
    )
    replacing(check)
    on_engine.declare(check)
    check.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    if is_server(options.engine):
        return on_engine.check(options)
    from ..api import prepare
    from ..named_models import of_no_family

    chosen = {"any_model": options.any_model, "replace": options.replace} | folders_of(options)
    ready = prepare(options.workflow, parse(options.set), **chosen)
    families = of_no_family(ready.prompt) if options.any_model else ()
    tell(
        f"{options.workflow}: {len(ready.prompt)} nodes, nothing wrong; outputs: {', '.join(ready.outputs)}", *families
    )
    return DONE
