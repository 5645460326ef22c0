"""The example workflows: each converts to its API twin, and runs on the embedded host with no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tessera.app.cli.main import main
from tessera.app.registry import node_classes
from tessera.host.graph.workflow import read, to_prompt
from tessera.host.schema.object_info import ObjectInfo

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))

examples = pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in EXAMPLES])


@pytest.fixture(scope="module")
def object_info() -> ObjectInfo:
    return ObjectInfo(node_classes())


def twin(path: Path) -> dict[str, Any]:
    return json.loads((ROOT / "tests" / "workflows" / f"{path.stem}.api.json").read_text(encoding="utf-8"))


@examples
def test_example_converts_to_its_twin(path: Path, object_info: ObjectInfo) -> None:
    assert to_prompt(read(path), object_info) == twin(path)


@examples
def test_drawing_is_whole(path: Path) -> None:
    """Every link is known to both of its ends, and every node lies in its own place."""
    drawing = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in drawing["nodes"]}
    assert drawing["last_node_id"] == max(nodes)
    assert len({tuple(node["pos"]) for node in nodes.values()}) == len(nodes)
    for number, source, out_slot, target, in_slot, kind in drawing["links"]:
        output, entry = nodes[source]["outputs"][out_slot], nodes[target]["inputs"][in_slot]
        assert number in output["links"]
        assert entry["link"] == number
        assert output["type"] == entry["type"] == kind


def run(workflow: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[Path]]:
    """Run a file on the embedded host; the images it made, by node id."""
    code = main(["run", str(workflow), "--json", "--device", "cpu", "--output-dir", str(folder)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    outputs = json.loads(printed.out)["outputs"]
    return {
        node_id: [Path(each["path"]) for each in shown["images"]]
        for node_id, shown in outputs.items()
        if "images" in shown
    }


@examples
def test_example_runs_and_its_image_is_a_workflow(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The saved image carries both graphs, and running the image draws it again, to the bit."""
    images = run(path, tmp_path / "first", capsys)
    saved = next(paths[0] for paths in images.values() if paths[0].is_relative_to(tmp_path))
    with Image.open(saved) as image:
        assert json.loads(image.info["prompt"]) == twin(path)
        assert json.loads(image.info["workflow"]) == json.loads(path.read_text(encoding="utf-8"))
    again = run(saved, tmp_path / "second", capsys)
    assert again.keys() == images.keys()
    for node_id, paths in images.items():
        for one, other in zip(paths, again[node_id], strict=True):
            with Image.open(one) as first, Image.open(other) as second:
                assert np.array_equal(np.asarray(first), np.asarray(second))
