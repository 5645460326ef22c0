"""What the command line prints when a standard stream is closed, full or of another encoding, and when it is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ending import end_of
from graph_nodes import node

posix = pytest.mark.skipif(sys.platform == "win32", reason="streams and signals of POSIX")
pytestmark = posix

TESSERA = """
    import sys, time
    from graph_nodes import CLASSES
    from tessera.app import registry
    from tessera.app.cli.main import main
    from tessera.host.schema import io

    class Sleeper(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(node_id="Sleeper", is_output_node=True)

        @classmethod
        def execute(cls):
            print("begun", flush=True)
            while True:
                time.sleep(0.01)

    registry.node_classes = lambda: CLASSES | {"Sleeper": Sleeper}
    sys.exit(main(sys.argv[1:]))
"""
GRAPH = {"1": node("Paint", batch=2), "2": node("Save", images=["1", 0], filename_prefix="image")}
BROKEN = GRAPH | {"3": node("Broken", way="value"), "4": node("Show", value=["3", 0])}
ENDLESS = GRAPH | {"3": node("Sleeper")}


def start(folder: Path, graph: Any, redirection: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start `tessera run` of a graph in a shell that redirects its streams."""
    (folder / "graph.json").write_text(json.dumps(graph))
    (folder / "program.py").write_text(textwrap.dedent(TESSERA))
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "program.py", "run", "graph.json", *options]
    return subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(folder: Path, graph: Any, redirection: str = "", *options: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, output and errors; whatever happens, both images are saved, and there is no traceback."""
    process = start(folder, graph, redirection, *options, **environment)
    out, err = (said.decode() for said in process.communicate())
    assert "Traceback" not in out + err and "Exception" not in out + err
    saved = sorted(path.name for path in folder.glob("*/image_*"))
    assert saved == ["image_00001_.png", "image_00002_.png"]
    assert all(path.read_bytes().endswith(b"IEND\xaeB`\x82") for path in folder.glob("*/image_*"))
    return process.returncode, out, err


def paths(folder: Path, output: str = "output") -> list[str]:
    return [str(folder / output / f"image_0000{number}_.png") for number in (1, 2)]


@pytest.mark.parametrize(
    ("graph", "code", "redirection"),
    [(GRAPH, 0, "2>&-"), (BROKEN, 2, "2>/dev/full"), (BROKEN, 2, "0<&- 2>&-"), (GRAPH, 0, "0<&- 1>&2 2>&-")],
)
def test_standard_error_that_is_closed_or_full_changes_nothing_else(
    tmp_path: Path, graph: Any, code: int, redirection: str
) -> None:
    found, out, err = run(tmp_path, graph, redirection)
    assert (found, err) == (code, "" if "1>&2" not in redirection else "\n".join([*paths(tmp_path), ""]))
    assert out.splitlines() == ([] if "1>&2" in redirection else paths(tmp_path))


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_standard_output_is_said_and_files_stay_named(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, out, err = run(tmp_path, GRAPH, "1>/dev/full", *options)
    said, *named = err.splitlines()
    assert (code, out) == (1, "")
    assert "standard output: No space left on device" in said
    assert named == paths(tmp_path)


def test_a_full_standard_output_of_other_commands_is_said(tmp_path: Path) -> None:
    for command in (["nodes", "--json"], ["--version"]):
        words = [sys.executable, "-m", "tessera.app.cli.main", *command]
        with open("/dev/full", "w") as full:
            done = subprocess.run(words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode in (0, 1)
        assert len(done.stderr.splitlines()) <= 1 and "Exception" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_letters_that_an_encoding_lacks_are_escaped(tmp_path: Path, encoding: str) -> None:
    folder = "\u043c\u043e\u0445 \u00e9"
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))
    process = start(tmp_path, GRAPH, "", "--output-dir", folder, PYTHONIOENCODING=encoding)
    out, err = end_of(process)
    assert (process.returncode, err) == (0, b"")
    expected = "\n".join([*paths(tmp_path, folder), ""])
    assert out == expected.encode(encoding, "backslashreplace")


def test_names_from_outside_are_printed_escaped(tmp_path: Path) -> None:
    folder = "a\x1b[31m\nb\u202e"
    process = start(tmp_path, BROKEN, "", "--output-dir", folder)
    out, err = end_of(process)
    assert process.returncode == 2
    assert len(out.splitlines()) == 2 and b"\x1b" not in out + err
    assert b"a\\x1b[31m\\nb\\u202e/image_00001_.png" in out


class Receiver(HTTPServer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Receiver  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        self.server.reports.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives it
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_terminated_reports_once_that_it_failed(
    tmp_path: Path, receiver: Receiver, number: signal.Signals
) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}"
    process = start(tmp_path, ENDLESS, "", "--webhook", url, "--webhook-private", "--track-id", "7")
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    for _ in range(3):
        process.send_signal(number)
    out, err = end_of(process)
    assert process.returncode == 143
    assert err == b"terminated; what was saved before stays\n"
    assert out.decode().splitlines() == paths(tmp_path)
    (report,) = receiver.reports
    assert (report["status"], report["track_id"], report["output"]) == ("failed", "7", paths(tmp_path))
    assert report["errors"] == ["terminated; what was saved before stays"]


def test_what_is_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    words = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", IGNORED]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "still here\n", done.stderr


IGNORED = """
import os, signal
from tessera.app.cli.signals import Terminated, handled
with handled():
    os.kill(os.getpid(), signal.SIGHUP)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Terminated:
        print("still here")
"""
