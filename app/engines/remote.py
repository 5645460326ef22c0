"""One workflow on a server: what `tessera run --engine URL` and `tessera.run(engine=URL)` do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ...files.writing import create
from ...host import folder_paths
from ...host.errors import GraphError
from ...host.graph.documents import Workflow
from ...host.graph.workflow import to_prompt
from ..assignments import apply
from .engine import Engine, Made, Task, input_files, output_nodes
from .server_files import NUMBERED


def local_files(prompt: Mapping[str, Any], info: Mapping[str, Mapping[str, Any]], input_dir: str) -> dict[str, Path]:
    """Return the input files of a prompt that lie in a folder here, by the name that the prompt has for each."""
    found = {}
    for _, _, value in input_files(dict(prompt), info):
        path = Path(input_dir, value.removesuffix("[input]").rstrip())
        if folder_paths.is_within_directory(input_dir, str(path)) and path.is_file():
            found[value] = path
    return found


def task_of(engine: Engine, workflow: Workflow, settings: Mapping[str, Any], input_dir: str) -> Task:
    """Return a workflow as an engine runs it, checked, with its input files.

    Raises:
        GraphError: something is wrong with it.
        EngineLost: the engine is gone.
    """
    info = engine.object_info()
    workflow.prompt = to_prompt(workflow, info)
    workflow = apply(settings, workflow, info)
    files = local_files(workflow.prompt, info, input_dir)
    prompt = engine.check(workflow.prompt, files)
    return Task(prompt, output_nodes(prompt, info), workflow.extra_pnginfo, read_files(files))


def read_files(files: Mapping[str, Path]) -> dict[str, bytes]:
    """Return the contents of input files.

    Raises:
        GraphError: one cannot be read.
    """
    try:
        return {name: path.read_bytes() for name, path in files.items()}
    except OSError as error:
        raise GraphError([f"{error.filename}: {error.strerror}; expected an input file"]) from error


def save(made: Made, folder: str) -> tuple[list[str], dict[str, dict[str, list[Any]]]]:
    """Write the files of a run into a folder, under names that are free.

    Returns:
        Their paths, and by node id what each node saved and told, as `tessera run --json` prints it.

    Raises:
        GraphError: they cannot be written.
    """
    outputs = {node_id: dict(found) for node_id, found in made.told.items()}
    paths = []
    for name, content in made.files.items():
        node_id, kind = made.places[name]
        try:
            path = _created(Path(folder), name, content)
        except OSError as error:
            raise GraphError([error.strerror or str(error)]) from error
        paths.append(path)
        outputs.setdefault(node_id, {}).setdefault(kind, []).append({"path": path})
    return paths, outputs


def _created(folder: Path, name: str, content: bytes) -> str:
    for candidate in _names(name):
        path = folder / candidate
        path.parent.mkdir(parents=True, exist_ok=True)
        if create(path, content):
            return str(path)
    raise AssertionError("there is always another number")


def _names(name: str) -> Iterator[str]:
    """Return a file name, and then the same with other numbers."""
    path = PurePosixPath(name)
    parts = NUMBERED.match(path.name)
    if parts:
        return (str(path.with_name(f"{parts['stem']}{number:05}{parts['rest']}")) for number in itertools.count(1))
    others = (str(path.with_name(f"{path.stem}_{number}{path.suffix}")) for number in itertools.count(2))
    return itertools.chain([name], others)
