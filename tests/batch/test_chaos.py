"""The short form of chaos.py, whose long form is run by hand: batches that are disturbed leave what others do."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from batch.chaos import Chaos, disturb


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Chaos:
    return Chaos(tmp_path_factory.mktemp("chaos"), jobs=30, seed=1)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(("kind", "count"), [("coordinator", 2), ("interrupt", 1)])
def test_every_job_is_done_once_whatever_happens_to_the_coordinator(chaos: Chaos, kind: str, count: int) -> None:
    assert disturb(chaos, kind, count) >= 1


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")
@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray")
def test_every_job_is_done_once_whatever_happens_to_a_worker(chaos: Chaos) -> None:
    assert disturb(chaos, "worker", 1) >= 1
