"""`tessera serve` as a process: it says where it is, answers, and ends at Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from ending import end_of
from tessera.app.cli.main import main
from tessera.app.cli.serve import _address


@pytest.mark.skipif(os.name == "nt", reason="sends signals as POSIX does")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_ended(tmp_path: Path, sent: signal.Signals) -> None:
    command = [sys.executable, "-m", "tessera.app.cli.main", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"Tessera is at (http://127\.0\.0\.1:\d+); Ctrl-C ends it\n", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        with urllib.request.urlopen(f"{found[1]}/object_info/KSampler", timeout=60) as response:
            assert "KSampler" in json.load(response)
        process.send_signal(sent)
        _, errors = end_of(process)
        assert (process.returncode, errors) == (0, "")
    assert list(tmp_path.iterdir()) == [], "nothing is written before it is needed"


def test_without_aiohttp_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert main(["serve"]) == 2
    assert capsys.readouterr().err == 'tessera serve needs aiohttp; run pip install "tessera-nodes[ui]"\n'


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--port", "70000"], "--port is 70000; expected 0"),
        (["--port", "-1"], "--port is -1"),
        (["--listen", "no such host"], "cannot listen on no such host"),
        (["--device", "abacus"], 'device is "abacus"'),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert main(["serve", "--port", str(other.getsockname()[1])]) == 2
    error = capsys.readouterr().err
    assert "choose another --port" in error
    assert error.count("\n") == 1


def test_the_address_is_one_that_a_browser_opens() -> None:
    assert _address("127.0.0.1", 8188) == "http://127.0.0.1:8188"
    assert _address("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert _address("::", 80) == "http://[::1]:80"
