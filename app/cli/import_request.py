"""`tessera import`: files in, files out."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files.writing import replace
from ...host.errors import GraphError, shown
from ...host.folder_paths import get_input_directory
from ..services.convert import Line, convert
from ..services.images import Pictures
from ..services.services import find_service

MOST_BYTES = 2**28
GREATEST_SEED = 2**64 - 1


def run(options: argparse.Namespace, info: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """Read a request, write its workflow, and its pictures to the input folder.

    Returns:
        What became of each parameter.

    Raises:
        GraphError: the request cannot be read or is refused, or nothing can be written.
    """
    service = find_service(options.service)
    document = read_request(Path(options.request))
    pictures = Pictures(named_files(options.image))
    seed = random.SystemRandom().getrandbits(31) if options.seed is None else options.seed
    if not 0 <= seed <= GREATEST_SEED:
        raise GraphError([f"--seed: found {seed}; expected a whole number from 0 to {GREATEST_SEED}"])
    choices = {"model": options.model, "family": options.family, "strict": options.strict}
    choices["text_model"] = options.text_model
    choices["background_model"] = options.background_model
    workflow, lines = convert(service, document, info, pictures, seed, **choices)
    for name, content in pictures.found.items():
        write(Path(get_input_directory()) / name, content)
    write(Path(options.output), (json.dumps(workflow, indent=1) + "\n").encode())
    return lines


def read_request(path: Path) -> Any:
    """The JSON document in a file.

    Raises:
        GraphError: it cannot be read, is too large, or is not JSON.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise GraphError([f"{path}: more than {MOST_BYTES} bytes; expected a request body"])
        return json.loads(path.read_bytes())
    except OSError as error:
        raise GraphError([f"{path}: {error.strerror or error}; expected a JSON file"]) from error
    except RecursionError as error:
        raise GraphError([f"{path}: the JSON is nested too deeply; expected a request body"]) from error
    except ValueError as error:
        raise GraphError([f"{path}: not JSON ({error}); expected a request body"]) from error


def named_files(settings: Sequence[str]) -> dict[str, Path]:
    """The files that `--image NAME=FILE` names. A name may hold "=", as links do; a file may not.

    Raises:
        GraphError: a setting is not of that form.
    """
    parts = [setting.rpartition("=") for setting in settings]
    for setting, (name, _, file) in zip(settings, parts, strict=True):
        if not name or not file:
            raise GraphError([f"--image {shown(setting)}: expected NAME=FILE"])
    return {name: Path(file) for name, _, file in parts}


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        GraphError: it cannot be written.
    """
    if not path.name or path.is_dir():
        raise GraphError([f"{path}: a folder; expected the file to write"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, content)
    except OSError as error:
        raise GraphError([f"{path}: {error.strerror or error}; choose another file"]) from error
