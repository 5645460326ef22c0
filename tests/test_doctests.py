"""The examples in docstrings run, and the libraries' names are there."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PUBLIC = ("guidance", "samplers", "tiling")
ROOT = Path(__file__).parents[1]
FOLDERS = [path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("tests", "benchmarks")]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
"""Every module with an example."""

WITHOUT_TORCH = "import sys, tessera; tessera.tiling, tessera.samplers; assert 'torch' not in sys.modules"


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"tessera.{name}"), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0, "the module has no example"
    assert result.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_there_and_documented(name: str) -> None:
    package = importlib.import_module(f"tessera.{name}")
    assert [public for public in package.__all__ if not getattr(package, public).__doc__] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


def test_libraries_are_attributes_that_import_nothing_heavy() -> None:
    looked = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert (looked.returncode, looked.stderr) == (0, "")
