"""The benchmarks start, and count what they count; their times are for those who run them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_what_a_benchmark_imports_is_there(name: str) -> None:
    module: Any = importlib.import_module(name)
    assert Path(module.__file__).parent == BENCHMARKS
    assert module.__doc__
    sys.modules.pop(name)


def test_the_work_of_a_negative_is_within_its_budget() -> None:
    """A block of each kind and one more single one, which are as many as Flux.1 has, in proportion."""
    benchmark: Any = importlib.import_module("flux_negative")
    blocks = {"num_layers": 1, "num_single_layers": 2}
    plain, guided = (benchmark.work(1024, tokens, **blocks) for tokens in (0, benchmark.TOKENS))
    assert 1.2 < guided / plain < benchmark.BUDGETS["nag"]
