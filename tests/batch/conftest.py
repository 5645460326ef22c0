"""`tessera batch` in an empty folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch.shades import FAULTS, FILES, GRAPH, RUNS, Open, Outcome, Shade, Tell, Tessera
from graph_nodes import CLASSES
from tessera.app.cli.main import main
from tessera.host import folder_paths
from tessera.host.schema.node import ComfyNode


@pytest.fixture
def tessera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Tessera]:
    """Run `tessera batch` in an empty folder: exit code, output, error lines."""
    classes: dict[str, type[ComfyNode]] = {**CLASSES, "Shade": Shade, "Open": Open, "Tell": Tell}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tessera.app.registry.node_classes", lambda: classes)
    RUNS.clear()
    FAULTS.clear()
    for name, graph in {"graph.json": GRAPH, "files.json": FILES}.items():
        Path(name).write_text(json.dumps(graph))

    def call(*arguments: Any) -> Outcome:
        capsys.readouterr()
        try:
            code = main(["batch", *map(str, arguments)])
        except SystemExit as stopped:
            assert isinstance(stopped.code, int)
            code = stopped.code
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    yield call
    folder_paths.configure()
