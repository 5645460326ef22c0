"""`tessera params`: how parameters of hosted services map to nodes."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .arguments import DONE


def declare(commands: Any) -> None:
    """Add the command."""
    params = commands.add_parser("params", help="show how service parameters map to nodes")
    params.add_argument("service", nargs="?", metavar="SERVICE", help="only this one")
    shape = params.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="as JSON")
    shape.add_argument("--schema", action="store_true", help="as JSON schemas of the requests")
    shape.add_argument("--markdown", action="store_true", help="as the page in app/services")
    params.set_defaults(command=command, verbose=False)


def command(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    from ..services import pages
    from ..services.services import SERVICES, find_service

    services = [find_service(options.service)] if options.service else list(SERVICES.values())
    if options.markdown:
        print(pages.markdown(), end="")
    elif options.json:
        print(json.dumps(pages.records(services), indent=1))
    elif options.schema:
        print(json.dumps({service.service: service.model_json_schema() for service in services}, indent=1))
    else:
        print(pages.text(services))
    return DONE
