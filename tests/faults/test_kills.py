"""Runs that are killed, stopped or out of room, several in one folder: what is named is there, whole and once.

`pytest -m faults` runs a few rounds; `pytest -m faults --long tests/faults/test_kills.py` runs 200.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from graph_nodes import node
from PIL import Image

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="forks and signals")]

ROUNDS, LONG_ROUNDS = 12, 200
IMAGES = 2
SMALL = 120_000
"""Bytes of the small file system; a run writes about as much."""

ENDED = {0, 1, 2, 130, 143, -signal.SIGTERM}
"""Exit codes of a run that said what it saved; SIGTERM itself ends it before it has begun and when it has printed."""


@dataclass
class Writer:
    """A run: its process, its number, which its images show, and where it prints."""

    pid: int
    level: int
    out: Path
    err: Path
    code: int | None = None

    @property
    def named(self) -> list[str]:
        """The files that it printed."""
        return self.out.read_text().splitlines()


class Starter:
    """Starts runs without waiting for imports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        (folder / "input").mkdir()
        program = Path(__file__).with_name("starter.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._answer() == "ready"
        self.count = 0

    def run(self, output: Path, closed: bool = False, parts: bool = False, largest: int = 0) -> Writer:
        """Start a run that saves images of its own number in each format into one folder."""
        self.count += 1
        level = self.count % 250 + 1
        image = self.folder / "input" / f"{level}.png"
        if not image.exists():
            noise = Image.effect_noise((96, 96), 60)
            Image.merge("RGB", [Image.new("L", (96, 96), level), noise, noise]).save(image)
        graph = self.folder / f"{self.count}.json"
        graph.write_text(json.dumps(saving(image.name)))
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        options = ["--output-dir", str(output), "--input-dir", str(self.folder / "input")]
        request = {
            "arguments": ["run", str(graph), *options],
            "folder": str(self.folder),
            "environment": {"TMPDIR": str(self.temporary)},
            "out": str(out),
            "err": "" if closed else str(err),
            "parts": parts,
            "largest": largest,
        }
        return Writer(int(self._ask(request)), level, out, err)

    def wait(self, writer: Writer) -> int:
        """Wait for the end of a run; return its exit code, negative for a signal."""
        writer.code = int(self._ask({"wait": writer.pid}))
        return writer.code

    def _ask(self, request: dict[str, Any]) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def saving(image: str) -> dict[str, Any]:
    """A graph that saves an image some times in each way, and shows it."""
    graph = {"0": node("LoadImage", image=image), "1": node("ImageBatch", image1=["0", 0], image2=["0", 0])}
    graph["2"] = node("PreviewImage", images=["1", 0])
    for name in range(1, IMAGES + 1):
        # One beginning, spelled in several ways, since nodes that are equal share the files of one.
        inputs = {"images": ["1", 0], "filename_prefix": f"a/{'./' * name}b"}
        graph |= {
            f"png {name}": node("SaveImage", **inputs),
            f"png16 {name}": node("TesseraSaveImage", **inputs, format="png16"),
            f"webp {name}": node("TesseraSaveImage", **inputs, format="webp", quality=100),
        }
    return graph


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    made = Starter(tmp_path_factory.mktemp("starter"))
    yield made
    made.process.communicate()


@contextmanager
def small_file_system(folder: Path) -> Iterator[bool]:
    """Mount a file system that is soon full; False where this user may not."""
    folder.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "none", str(folder)], capture_output=True, check=False
    ).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def check(writers: list[Writer], output: Path) -> None:
    """Every named file is there, whole, and of the run that named it; all files are whole and of some run."""
    named = Counter(path for writer in writers for path in writer.named)
    assert set(named.values()) <= {1}
    saved = sorted(output.rglob("*"))
    left = {str(path): shown(path) for path in saved if path.is_file() and not path.name.startswith(".tessera-")}
    for writer in writers:
        assert all(left[path] == writer.level for path in writer.named)
        told = writer.err.read_text() if writer.err.exists() else ""
        assert "Traceback" not in told and len(told.splitlines()) <= 1, told
        if writer.code in ENDED:
            own = [path for path, level in left.items() if level == writer.level]
            assert sorted(own) == sorted(writer.named), "what was saved is named"
        else:
            assert writer.code == -signal.SIGKILL
    assert set(left.values()) <= {writer.level for writer in writers}


def shown(path: Path) -> int:
    """The number of the run that a whole image shows."""
    with Image.open(path) as image:
        low, high = image.convert("RGB").getchannel("R").getextrema()
    assert low == high
    return int(low)


def end(starter: Starter, writers: list[Writer], chance: random.Random, longest: float) -> None:
    """Send some of the runs a signal at some moment, and wait for all."""
    moments = sorted((chance.uniform(0, longest), place) for place in range(len(writers)))
    began = time.monotonic()
    for moment, place in moments:
        time.sleep(max(0.0, began + moment - time.monotonic()))
        number = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
        if number is not None:
            # The process stays known until it is waited for, so the number is nobody else's.
            os.kill(writers[place].pid, number)
    for writer in writers:
        starter.wait(writer)


def clean(starter: Starter, output: Path) -> None:
    """One more run into the folder; nothing of the others is left but images."""
    last = starter.run(output)
    assert starter.wait(last) == 0, last.err.read_text()
    assert len(last.named) == 6 * IMAGES
    assert list(output.rglob(".*")) == []
    assert list(starter.temporary.iterdir()) == []


def test_runs_that_are_killed_leave_whole_images_alone(
    starter: Starter, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    long = request.config.getoption("long")
    chance = random.Random(int.from_bytes(os.urandom(8), "big") if long else 19)
    began = time.monotonic()
    starter.wait(starter.run(tmp_path / "first"))
    usual = time.monotonic() - began
    for number in range(LONG_ROUNDS if long else ROUNDS):
        output = tmp_path / str(number)
        parts = chance.random() < 0.3
        writers = [starter.run(output, chance.random() < 0.3, parts) for _ in range(chance.choice([1, 2, 3, 4]))]
        end(starter, writers, chance, 1.2 * usual * len(writers))
        check(writers, output)
    for number in range(LONG_ROUNDS if long else ROUNDS):
        if (tmp_path / str(number)).exists():
            clean(starter, tmp_path / str(number))
            if not long:
                break


def test_runs_in_one_folder_lose_nothing(starter: Starter, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for _ in range(20 if request.config.getoption("long") else 1):
        for parts in (False, True):
            writers = [starter.run(tmp_path / "shared", parts=parts) for _ in range(4)]
            codes = [starter.wait(writer) for writer in writers]
            assert codes == [0] * 4, [writer.err.read_text() for writer in writers]
            assert all(len(writer.named) == 6 * IMAGES for writer in writers)
            check(writers, tmp_path / "shared")
            for path in (tmp_path / "shared").rglob("*.*"):
                path.unlink()


@pytest.mark.parametrize("parts", [False, True])
def test_a_full_disk_leaves_whole_images_and_names_them(starter: Starter, tmp_path: Path, parts: bool) -> None:
    with small_file_system(tmp_path / "small") as mounted:
        if not mounted:
            pytest.skip("this user may not mount a file system")
        writers = [starter.run(tmp_path / "small" / "a", parts=parts) for _ in range(2)]
        codes = [starter.wait(writer) for writer in writers]
        assert 1 in codes and set(codes) <= {0, 1}
        check(writers, tmp_path / "small")
        assert not list((tmp_path / "small").rglob(".*"))
        said = "".join(writer.err.read_text() for writer in writers)
        assert "cannot be saved in" in said and "no space left on device; make room there" in said


def test_a_limit_on_files_leaves_whole_images(starter: Starter, tmp_path: Path) -> None:
    writer = starter.run(tmp_path / "limited", largest=20_000)
    assert starter.wait(writer) == 2
    check([writer], tmp_path / "limited")
    assert not list((tmp_path / "limited").rglob(".*"))
    assert "file too large" in writer.err.read_text()
