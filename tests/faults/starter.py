"""A program that has loaded everything, and forks a process for each command line it is asked to run.

Requests come as lines of JSON on standard input: `{"arguments": [...], "folder": ..., "environment": {...},
"out": file, "err": file or "" for closed, "parts": bool, "largest": bytes}` starts one and answers with its id;
`{"wait": id}` answers with its exit status. Each process runs the command line as a program of its own would.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
from typing import Any


def load() -> None:
    """Import what a run imports, so that a process is ready at once."""
    from PIL import Image
    from tessera.app import registry
    from tessera.app.cli import main, run
    from tessera.host.graph import execution, validation

    Image.init()
    assert all((main, run, execution, validation))
    registry.object_info()


def serve() -> dict[str, Any]:
    """Answer requests; return a request in the process that was forked for it."""
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                return request
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    os._exit(0)


def become(request: dict[str, Any]) -> None:
    """Set streams, folder and limits as the request says."""
    from tessera.files import writing

    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    for number, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        os.close(number)
        if path:
            assert os.open(path, os.O_RDWR | os.O_CREAT) == number
    if request["parts"] and hasattr(os, "O_TMPFILE"):
        del writing.os.O_TMPFILE
    if request["largest"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest"], request["largest"]))


STOPS = {signal.SIGINT, signal.SIGTERM}

if __name__ == "__main__":
    load()
    # Signals are for the command, not for the lines around it.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    asked = serve()
    become(asked)
    from tessera.app.cli.main import main as run_command

    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    code = run_command(asked["arguments"])
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    sys.exit(code)
