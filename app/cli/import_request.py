"""`tessera import`: turn a request of a hosted service into a workflow."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...files.reading import read_file
from ...files.writing import replace
from ...host.errors import GraphError, shown
from ...host.folder_paths import get_input_directory
from ...host.schema.limits import MAX_SEED
from .arguments import DONE, Parser
from .nodes import configured

if TYPE_CHECKING:
    from ...host.schema.object_info import ObjectInfo
    from ..services.bodies.request import Request

MAX_REQUEST_BYTES = 2**28
"""A request holds images as base64 text."""


def declare(commands: Any, parents: list[Parser]) -> None:
    """Add the command."""
    made = commands.add_parser("import", parents=parents, help="turn a hosted service's request into a workflow")
    made.add_argument("service", metavar="SERVICE", help="one that tessera params lists, such as scenario-texture")
    made.add_argument("request", metavar="REQUEST", help="the JSON body that was sent, several, or code that sends it")
    made.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help="the workflow to write; of several bodies FILE_1, FILE_2, ...",
    )
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
    """Read requests, write a workflow of each, and their images to the input folder; tell what became of parameters.

    Raises:
        GraphError: the requests cannot be read, one is refused, or nothing can be written.
    """
    info = configured(options)
    from ..services.bodies.forms import bodies
    from ..services.services import find_service

    service = find_service(options.service)
    if options.seed is not None and not 0 <= options.seed <= MAX_SEED:
        raise GraphError([f"--seed: found {options.seed}; expected a whole number from 0 to {MAX_SEED}"])
    path = Path(options.request)
    try:
        found = bodies(read_request(path), service)
    except GraphError as error:
        raise GraphError(f"{path}: {line}" for line in error.lines) from error
    files = outputs(Path(options.output), len(found))
    made = [_converted(service, body, info, options, number) for number, body in _numbered(found)]
    for (images, workflow, lines), output in zip(made, files, strict=True):
        for name, content in images.items():
            write(Path(get_input_directory()) / name, content)
        write(output, (json.dumps(workflow, indent=1) + "\n").encode())
        for line in ([output] if len(made) > 1 else []) + lines:
            print(line)
    return DONE


def _numbered(found: list[Any]) -> list[tuple[int, Any]]:
    """Return the bodies with their numbers; 0 for one alone."""
    return list(enumerate(found, len(found) > 1))


def _converted(
    service: type[Request], body: Any, info: ObjectInfo, options: argparse.Namespace, number: int
) -> tuple[dict[str, bytes], dict[str, Any], list[Any]]:
    """Return the images, the workflow and the report of a body; `number` tells it from others, if there are any."""
    from ..services.bodies.images import RequestImages
    from ..services.convert import convert

    images = RequestImages(named_files(options.image))
    seed = random.SystemRandom().getrandbits(31) if options.seed is None else options.seed
    choices = {"model": options.model, "family": options.family, "strict": options.strict}
    choices |= {"text_model": options.text_model, "background_model": options.background_model}
    try:
        workflow, lines = convert(service, body, info, images, seed, **choices)
    except GraphError as error:
        raise GraphError(f"body {number}: {line}" if number else line for line in error.lines) from error
    return images.found, workflow, lines


def outputs(path: Path, count: int) -> list[Path]:
    """Return the files to write: `path` alone, or one with a number for each of several workflows.

    Raises:
        GraphError: `path` is a folder.

    >>> [str(each) for each in outputs(Path("moss.json"), 2)]
    ['moss_1.json', 'moss_2.json']
    """
    if not path.name or path.is_dir():
        raise GraphError([f"{path}: a folder; expected the file to write"])
    if count == 1:
        return [path]
    digits = len(str(count))
    return [path.with_name(f"{path.stem}_{number:0{digits}}{path.suffix}") for number in range(1, count + 1)]


def read_request(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        GraphError: it cannot be read, or is too large.
    """
    try:
        return read_file(path, MAX_REQUEST_BYTES)
    except OSError as error:
        raise GraphError([f"{error.strerror or error}; expected a file with a request"]) from error


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, content)
    except OSError as error:
        reason = f"{path}: {error.strerror}; choose another file" if error.filename else error.strerror or str(error)
        raise GraphError([reason]) from error
