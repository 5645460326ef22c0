"""`tessera import`: turn a request of a hosted service into a workflow."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...files.writing import replace
from ...host.errors import GraphError, shown
from ...host.folder_paths import get_input_directory
from ...host.schema.limits import MAX_SEED
from .arguments import DONE, Parser
from .nodes import configured

MAX_REQUEST_BYTES = 2**28
"""A request holds images as base64 text."""


def declare(commands: Any, parents: list[Parser]) -> None:
    """Add the command."""
    made = commands.add_parser("import", parents=parents, help="turn a hosted service's request into a workflow")
    made.add_argument("service", metavar="SERVICE", help="one that tessera params lists, such as scenario-texture")
    made.add_argument("request", metavar="REQUEST", help="the JSON body that was sent to the service")
    made.add_argument("-o", "--output", metavar="FILE", required=True, help="the workflow to write")
    made.add_argument("--strict", action="store_true", help="refuse what would only be approximated or left out")
    made.add_argument("--model", metavar="NAME", help="the checkpoint to use (default: the one named in the request)")
    made.add_argument(
        "--background-model",
        metavar="NAME",
        default="",
        help="background removal model (a file in models/background_removal), for requests of transparency",
    )
    made.add_argument(
        "--text-model",
        metavar="NAME",
        default="",
        help="language model (a folder in models/text_generation), for requests of an enhanced prompt",
    )
    made.add_argument("--family", choices=["sd15", "sdxl", "flux-dev", "flux-pro", "flux-schnell"], help="of the model")
    made.add_argument("--seed", type=int, help="random seed for a request without one (default: a random one)")
    made.add_argument(
        "--image",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="image file for a name or link in the request; nothing is downloaded",
    )
    made.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Read a request, write its workflow, and its images to the input folder; print what became of each parameter.

    Raises:
        GraphError: the request cannot be read or is refused, or nothing can be written.
    """
    info = configured(options)
    from ..services.convert import convert
    from ..services.images import RequestImages
    from ..services.services import find_service

    service = find_service(options.service)
    document = read_request(Path(options.request))
    images = RequestImages(named_files(options.image))
    seed = random.SystemRandom().getrandbits(31) if options.seed is None else options.seed
    if not 0 <= seed <= MAX_SEED:
        raise GraphError([f"--seed: found {seed}; expected a whole number from 0 to {MAX_SEED}"])
    choices = {"model": options.model, "family": options.family, "strict": options.strict}
    choices |= {"text_model": options.text_model, "background_model": options.background_model}
    workflow, lines = convert(service, document, info, images, seed, **choices)
    for name, content in images.found.items():
        write(Path(get_input_directory()) / name, content)
    write(Path(options.output), (json.dumps(workflow, indent=1) + "\n").encode())
    for line in lines:
        print(line)
    return DONE


def read_request(path: Path) -> Any:
    """Return the JSON document in a file.

    Raises:
        GraphError: it cannot be read, is too large, or is not JSON.
    """
    try:
        if path.stat().st_size > MAX_REQUEST_BYTES:
            raise GraphError([f"{path}: more than {MAX_REQUEST_BYTES} bytes; expected a request body"])
        return json.loads(path.read_bytes())
    except OSError as error:
        raise GraphError([f"{path}: {error.strerror or error}; expected a JSON file"]) from error
    except RecursionError as error:
        raise GraphError([f"{path}: the JSON is nested too deeply; expected a request body"]) from error
    except ValueError as error:
        raise GraphError([f"{path}: not JSON ({error}); expected a request body"]) from error


def named_files(settings: Sequence[str]) -> dict[str, Path]:
    """Return the files that `--image NAME=FILE` names. A name may contain "=", as links do; a file may not.

    Raises:
        GraphError: a setting is not of that form.
    """
    parts = [setting.rpartition("=") for setting in settings]
    for setting, (name, _, file) in zip(settings, parts, strict=True):
        if not name or not file:
            raise GraphError([f"--image {shown(setting)}: expected NAME=FILE"])
    return {name: Path(file) for name, _, file in parts}


def write(path: Path, content: bytes) -> None:
    """Write a file, and the folders it is in.

    Raises:
        GraphError: it cannot be written.
    """
    if not path.name or path.is_dir():
        raise GraphError([f"{path}: a folder; expected the file to write"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, content)
    except OSError as error:
        reason = f"{path}: {error.strerror}; choose another file" if error.filename else error.strerror or str(error)
        raise GraphError([reason]) from error
