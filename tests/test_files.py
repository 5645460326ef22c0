"""Files are whole, and belong to the process that named them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from naming import naming
from PIL import Image
from tessera.app.cli.import_request import write
from tessera.files import locks, temporary, writing
from tessera.files.reading import open_file, read_file
from tessera.files.writing import create, create_series, replace
from tessera.host.errors import GraphError

PROCESSES, BATCHES, IMAGES = 4, 5, 4

WRITER = """
import sys
import torch
from tessera.host import folder_paths
from tessera.host.schema.inputs import FolderType
from tessera.host.schema.ui import ImageSaveHelper
from tessera.nodes.save import TesseraSaveImage

folder, value, node, batches, images = sys.argv[1], *map(int, sys.argv[2:])
folder_paths.configure(output_dir=folder)
batch = torch.full((images, 8, 8, 3), value / 255 + 0.001)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(batches):
    if node:
        saved = TesseraSaveImage.execute(batch, "a/b", "webp", 100).ui.results
    else:
        saved = ImageSaveHelper.save_images(batch, "a/b", FolderType.output, None)
    print(*(each["filename"] for each in saved), sep="\\n")
"""


@pytest.mark.parametrize("node", [0, 1], ids=["SaveImage", "TesseraSaveImage"])
def test_processes_that_write_into_one_folder_lose_nothing(tmp_path: Path, node: int) -> None:
    """Each process saves images of one level, so a file tells whose it is."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    writers = [
        subprocess.Popen(
            [*command, *map(str, (level, node, BATCHES, IMAGES))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for level in range(PROCESSES)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    names = [writer.communicate()[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * PROCESSES
    every = [name for own in names for name in own]
    assert len(every) == len(set(every)) == PROCESSES * BATCHES * IMAGES
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(every)
    for level, own in enumerate(names):
        for name in own:
            with Image.open(tmp_path / "a" / name) as image:
                assert image.convert("L").getextrema() == (level, level)


@pytest.fixture(params=["at once", "part"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How files are written: without a name until they are whole, or under another name where the system cannot."""
    if request.param == "part":
        monkeypatch.delattr(writing.os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("files without a name are Linux's")
    return request.param


def test_a_series_skips_what_is_taken_and_leaves_it(tmp_path: Path, way: str) -> None:
    (tmp_path / "a_00002_.txt").write_bytes(b"mine")
    assert create_series(tmp_path, "a", ".txt", [b"x", b"y"]) == ["a_00001_.txt", "a_00003_.txt"]
    assert create_series(tmp_path, "%batch_num%", ".txt", [b"x", b"y"], 7) == ["0_00007_.txt", "1_00008_.txt"]
    assert (tmp_path / "a_00002_.txt").read_bytes() == b"mine"
    assert not create(tmp_path / "a_00002_.txt", b"yours")
    assert len(list(tmp_path.iterdir())) == 5


def test_a_file_system_without_hard_links_is_written_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(writing.os, "link", refuse)
    assert create_series(tmp_path, "a", ".txt", [b"x", b"y"]) == ["a_00001_.txt", "a_00002_.txt"]
    assert not create(tmp_path / "a_00002_.txt", b"yours")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a_00001_.txt": b"x",
        "a_00002_.txt": b"y",
    }


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize(
    ("writer", "calls"),
    [(replace, ["fsync"]), (replace, ["replace"]), (create, ["fsync"]), (create, ["link", "rename"])],
)
def test_nothing_is_left_of_a_file_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Any, calls: list[str], failure: BaseException, way: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    for call in calls:
        monkeypatch.setattr(writing.os, call, fail)
    with pytest.raises(type(failure)) as raised:
        writer(tmp_path / "moss.txt", b"new")
    assert not isinstance(failure, OSError) or all(part in str(raised.value) for part in ("moss.txt", str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_with_the_rights_that_the_user_gives_new_files(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    before = os.umask(0o027)
    try:
        for content in (b"1", b"22"):
            replace(path, content)
            assert path.read_bytes() == content
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
from tessera.files import locks, temporary, writing
from tessera.files.reading import read_file

delattr(writing.os, "O_TMPFILE") if hasattr(os, "O_TMPFILE") else None
writing.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
writing.create(sys.argv[1], b"half")
"""


@pytest.mark.skipif(not locks.CAN_LOCK, reason="the system has no such locks")
def test_what_a_killed_process_left_is_removed_and_nothing_that_is_in_use(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "moss.txt")], check=False)
    assert killed.returncode < 0
    (left,) = tmp_path.iterdir()
    assert writing.PART.fullmatch(left.name)
    used = tmp_path / f".tessera-{'0' * 32}.part"
    with used.open("xb") as file:
        assert locks.hold(file.fileno())
        writing.remove_abandoned.cache_clear()
        assert create(tmp_path / "moss.txt", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"moss.txt", used.name}
    writing.remove_abandoned.cache_clear()
    replace(tmp_path / "moss.txt", b"more")
    assert [path.name for path in tmp_path.iterdir()] == ["moss.txt"]


FOLDER = """
import os, signal, sys
from pathlib import Path
from tessera.files.temporary import short_lived

with short_lived() as folder:
    Path(folder, "preview.png").write_bytes(b"x")
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(not locks.CAN_LOCK, reason="the system has no such locks")
def test_temporary_folders_do_not_outlive_their_process(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", FOLDER]

    def start() -> tuple[subprocess.Popen[str], Path]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, env=environment, text=True, **pipes)  # pyright: ignore[reportCallIssue, reportArgumentType]
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    killed, left = start()
    killed.kill()
    killed.communicate()
    assert (left / "preview.png").exists()
    first, one = start()
    assert not left.exists()
    second, other = start()
    assert one.exists() and other.exists()
    for process in (first, second):
        process.communicate("\n")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_that_another_process_removed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the making of a folder and its lock, another process may take it for abandoned."""
    made = [tmp_path / "gone", tmp_path / "kept"]
    made[1].mkdir()
    monkeypatch.setattr(temporary.tempfile, "mkdtemp", lambda prefix: str(made.pop(0)))
    assert temporary.make_folder() == str(tmp_path / "kept")


def test_pipes_devices_and_folders_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not a file"):
            read_file(path, 10)
    (tmp_path / "file").write_bytes(b"1234")
    assert read_file(tmp_path / "file", 4) == b"1234"
    with pytest.raises(OSError, match="more than 3 bytes"):
        read_file(tmp_path / "file", 3)


def test_a_workflow_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GraphError, match=naming("file")) as refused:
        write(tmp_path / "file" / "w.json", b"{}")
    assert len(refused.value.lines) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("asked", [0, 10, 10**6, 2**40, -1, None])
def test_no_more_is_read_than_the_file_has(tmp_path: Path, asked: int | None) -> None:
    """A header may claim any size; 2**40 bytes are more than any memory that tests run in."""
    content = bytes(range(256)) * 400
    (tmp_path / "a.bin").write_bytes(content)
    with open_file(tmp_path / "a.bin") as file:
        assert file.read(7) == content[:7]
        rest = content[7:]
        assert file.read(asked) == (rest if asked is None or asked < 0 else rest[:asked])
        file.seek(0, os.SEEK_END)
        assert file.read(asked) == b""
