"""The extension of the editor in web/js: small files, types that hold, and its formulas, run by node if it is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tessera.nodes.replacements import FOREIGN_TILINGS
from tessera.nodes.scheduler_inputs import OWN

WEB = Path(__file__).parents[1] / "web" / "js"
FILES = sorted(WEB.glob("*.js"))
LONGEST = 200

files = pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in FILES])


@files
def test_a_file_is_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) < LONGEST


@files
def test_only_one_file_knows_the_editor(path: Path) -> None:
    assert ("/scripts/" in path.read_text("utf-8")) == (path.name == "host.js")


@files
def test_no_prototype_is_patched(path: Path) -> None:
    assert ".prototype" not in path.read_text("utf-8")


def test_types_hold() -> None:
    compiler = shutil.which("tsc")
    if compiler is None:
        pytest.skip("needs tsc: npm install --global typescript")
    found = subprocess.run([compiler, "-p", str(WEB)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules in a folder that tells node that they are ES modules."""
    if shutil.which("node") is None:
        pytest.skip("needs node")
    folder = tmp_path_factory.mktemp("modules")
    for path in FILES:
        shutil.copy(path, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def evaluate(module: Path, expression: str) -> Any:
    """The value of a JavaScript expression that has a module's exports at hand as `m`."""
    script = f"import * as m from {json.dumps(module.as_uri())}; console.log(JSON.stringify({expression}))"
    command = ["node", "--input-type=module", "--eval", script]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", ["straight", "both", "half_drop", "brick", "horizontal", "vertical", "off"])
def test_repeats_cover_the_view_once(name: str, modules: Path) -> None:
    """Every point of the view lies in one repeat; along an axis that does not repeat, in none outside of the image."""
    layout = evaluate(modules / "tile.js", f"m.layoutOf('{name}')")
    for tile, origin in (((40, 30), (7, -11)), ((64, 64), (-300, 95)), ((300, 500), (20, 20))):
        found = evaluate(
            modules / "tile.js", f"m.corners({json.dumps(layout)}, {list(tile)}, {list(origin)}, [200, 150])"
        )
        for x in range(1, 200, 13):
            for y in range(1, 150, 11):
                inside = [c for c in found if c[0] <= x < c[0] + tile[0] and c[1] <= y < c[1] + tile[1]]
                in_column = layout["across"] or origin[0] <= x < origin[0] + tile[0]
                in_row = layout["down"] or origin[1] <= y < origin[1] + tile[1]
                assert len(inside) == int(in_column and in_row), (name, tile, x, y)


def test_a_half_drop_shifts_the_next_column_by_half(modules: Path) -> None:
    found = evaluate(modules / "tile.js", "m.corners(m.layoutOf('half_drop'), [10, 20], [0, 0], [20, 20])")
    assert sorted(y % 20 for x, y in found if x == 0) == [0]
    assert {y % 20 for x, y in found if x == 10} == {10}


def test_what_fits_lies_in_the_middle(modules: Path) -> None:
    found = evaluate(modules / "tile.js", "m.fit([100, 50], [3, 3], [600, 600])")
    assert found == {"zoom": 2, "origin": [0, 150]}


@pytest.mark.parametrize("module", [path.name for path in FILES if path.name not in ("host.js", "tessera.js")])
def test_a_module_reads_as_one(module: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    source = (WEB / module).read_text("utf-8")
    run = subprocess.run(
        [node, "--input-type=module", "--check"], input=source, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_the_interface_knows_the_same_words_of_other_packs() -> None:
    table = json.dumps(FOREIGN_TILINGS)
    source = re.sub(r"(\w+): ", r'"\1": ', (WEB / "foreign.js").read_text("utf-8"))
    assert table in source.replace("{ ", "{").replace(" }", "}")


def test_the_interface_knows_the_same_options_as_the_nodes() -> None:
    found = re.search(r"OWN = ({.*?});", (WEB / "options.js").read_text("utf-8"))
    assert found
    assert json.loads(re.sub(r"(\w+):", r'"\1":', found[1])) == OWN


def test_what_lies_under_the_pointer_stays_there(modules: Path) -> None:
    """A px of the image is at the same point before and after, at any zoom, and the zoom has bounds."""
    script = """(() => {
      const place = { zoom: 2, origin: [30, -10], moved: false }, point = [120, 75];
      const under = () => point.map((value, axis) => (value - place.origin[axis]) / place.zoom);
      const before = under();
      for (const factor of [1.2, 1.2, 0.1, 1e9, 1e-9]) m.zoomAt(place, point, factor);
      return { before, after: under(), zoom: place.zoom };
    })()"""
    found = evaluate(modules / "zoom.js", script)
    assert found["after"] == pytest.approx(found["before"])
    assert found["zoom"] == 1 / 32
