"""From a row to a job: what it changes, whether that is right, and the key of its results."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...host import folder_paths
from ...host.errors import GraphError, shown
from ...host.graph.documents import Workflow
from ...host.graph.mapping import is_link
from ...host.graph.workflow import Prompt
from ..engines.engine import Engine, input_files, output_nodes
from .columns import Target, find_target, value_of
from .tables import Row

LOADED = {"MODEL", "CLIP", "VAE"}
"""Outputs of nodes that load models; jobs with the same loaders follow one another."""


@dataclass(frozen=True)
class Planned:
    """A job.

    Attributes:
        key: hash of the prompt and of its input files' contents.
        model: equal for jobs that load the same models.
        prompt: the checked API-format graph.
        outputs: the ids of its output nodes.
        inputs: what the row sets, by NODE.INPUT, as the journal tells it.
        files: input files by the name that the prompt has for each.
        digests: SHA-256 of each.
        contents: the same of files that are not on disk.
        ui_graph: the graph in the UI format, where the row has one of its own.
    """

    key: str
    model: str
    prompt: Prompt
    outputs: Sequence[str]
    inputs: Mapping[str, Any]
    files: Mapping[str, Path]
    digests: Mapping[str, str]
    contents: Mapping[str, bytes] = field(default_factory=dict)
    ui_graph: dict[str, Any] | None = None

    def read_files(self) -> dict[str, bytes]:
        """Return the contents of the input files.

        Raises:
            GraphError: one cannot be read, or is another one than when the job was planned.
        """
        return {name: _content(path, self.digests[name]) for name, path in self.files.items()} | dict(self.contents)


class Planner:
    """Makes jobs of the rows of a table.

    Args:
        workflow: with an API-format graph.
        input_dir: where files are that a row names; else they are beside the table, or named by their whole path.
    """

    def __init__(self, engine: Engine, workflow: Workflow, input_dir: Path, table_dir: Path) -> None:
        self.engine, self.workflow = engine, workflow
        self.folders = [Path(os.path.abspath(each)) for each in (input_dir, table_dir)]
        self.info = engine.object_info()
        self.prompt: Prompt = workflow.prompt
        self._targets: dict[str, Target] = {}
        self._digest = functools.lru_cache(1024)(_digest)
        self.is_right_alone = self._check_alone()

    def _check_alone(self) -> bool:
        """Check the workflow without a row; return whether rows need only be checked where they change it."""
        try:
            self.prompt = self.engine.check(self.prompt, self._find_files(self.prompt))
        except GraphError:
            return False
        return True

    def plan(self, row: Row) -> Planned:
        """Return the job of a row.

        Raises:
            GraphError: something is wrong with it.
        """
        if row.wrong:
            raise GraphError([row.wrong])
        return self.planned(self.settings(row))

    def content(self, row: Row, planned: Planned) -> str:
        """Return what `again` makes the job of."""
        return json.dumps(planned.inputs)

    def again(self, content: str) -> Planned:
        """Return a job once more, as its files are now."""
        return self.planned(json.loads(content))

    def settings(self, row: Row) -> dict[str, Any]:
        """Return what a row changes, by NODE.INPUT. An empty cell changes nothing."""
        found: dict[str, Any] = {}
        for column, value in row.values.items():
            if value is None or (row.is_text and value == ""):
                continue
            target = self.target(column)
            if target.setting in found:
                raise GraphError([f"column {shown(column)}: {target.setting} is set twice; leave one out"])
            class_type = self.prompt[target.node_id]["class_type"]
            found[target.setting] = value_of(target, value, row.is_text, class_type)
        return found

    def target(self, column: str) -> Target:
        """Return what a column changes."""
        if column not in self._targets:
            self._targets[column] = find_target(column, self.prompt, self.info)
        return self._targets[column]

    def planned(self, settings: Mapping[str, Any]) -> Planned:
        """Return the job that changes inputs as told."""
        prompt = _changed(self.prompt, settings)
        prompt, files = self._name_files(prompt)
        changed = {setting.partition(".")[0] for setting in settings}
        whole = not self.is_right_alone or any(map(is_link, settings.values()))
        prompt = self.engine.check(prompt, files, None if whole else changed)
        digests = {name: self._digest(*_identity(path)) for name, path in files.items()}
        outputs = output_nodes(prompt, self.info)
        return Planned(key_of(prompt, digests), models_of(prompt, self.info), prompt, outputs, settings, files, digests)

    def _find_files(self, prompt: Prompt) -> dict[str, Path]:
        places = input_files(prompt, self.info)
        found = {value: self._find_file(value) for _, _, value in places}
        return {name: path for name, path in found.items() if path is not None}

    def _find_file(self, value: str) -> Path | None:
        name = value.removesuffix("[input]").rstrip()
        for folder in self.folders:
            path = folder / name
            if "\0" not in name and path.is_file():
                return path
        return None

    def _name_files(self, prompt: Prompt) -> tuple[Prompt, dict[str, Path]]:
        """Return the prompt with short names for files from elsewhere, and where each lies."""
        files: dict[str, Path] = {}
        for node_id, name, value in input_files(prompt, self.info):
            path = self._find_file(value)
            if path is None:
                continue
            short = value if self._is_inside(value) else path.name
            if files.get(short, path) != path:
                short = f"{self._digest(*_identity(path))[:16]}-{short}"
            files[short] = path
            if short != value:
                node = prompt[node_id]
                prompt = {**prompt, node_id: {**node, "inputs": {**node["inputs"], name: short}}}
        return prompt, files

    def _is_inside(self, value: str) -> bool:
        path = self.folders[0] / value
        return path.is_file() and folder_paths.is_within_directory(str(self.folders[0]), str(path))


def _changed(prompt: Prompt, settings: Mapping[str, Any]) -> Prompt:
    changed = dict(prompt)
    for setting, value in settings.items():
        node_id, _, name = setting.partition(".")
        changed[node_id] = {**changed[node_id], "inputs": {**changed[node_id]["inputs"], name: value}}
    return changed


def key_of(prompt: Prompt, digests: Mapping[str, str]) -> str:
    """Return the key of a job: 32 hexadecimal digits that depend on all that its results depend on."""
    graph = {node_id: [node["class_type"], node["inputs"]] for node_id, node in prompt.items()}
    content = json.dumps([graph, digests], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def models_of(prompt: Prompt, info: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a short text that is equal for prompts which load the same models."""
    loaders = [
        [node["class_type"], node["inputs"]]
        for node in prompt.values()
        if not any(map(is_link, node["inputs"].values())) and LOADED & set(info[node["class_type"]]["output"])
    ]
    content = json.dumps(sorted(loaders, key=repr), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _identity(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise GraphError([f"{path}: {error.strerror}; expected an input file"]) from error
    return str(path), found.st_mtime_ns, found.st_size


def _digest(path: str, *_: int) -> str:
    try:
        with open(path, "rb") as file:
            found = hashlib.sha256()
            while part := file.read(2**20):
                found.update(part)
            return found.hexdigest()
    except OSError as error:
        raise GraphError([f"{path}: {error.strerror}; expected an input file"]) from error


def _content(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GraphError([f"{path}: {error.strerror}; expected an input file"]) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise GraphError([f"{path}: changed since the batch began; start it again"])
    return content
