"""The examples in docstrings run, and the libraries' names are there."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

PUBLIC = ("guidance", "samplers", "tiling")
MODULES = (
    "guidance",
    "guidance.flux_negative",
    "app.batch.ray_pool",
    "app.engines.server_files",
    "guidance.formulas",
    "images.control_maps",
    "images.enlarging",
    "images.outpaint",
    "patching.schedule",
    "prompts.styles",
    "samplers",
    "samplers.pipeline",
    "samplers.spacing",
    "tiling",
    "tiling.maps",
    "tiling.pipeline",
    "tiling.seam",
    "tiling.tileable",
    "tiling.torus",
    "tiling.wrap",
)
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
