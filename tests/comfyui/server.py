"""A real ComfyUI, booted headless on the CPU with this pack in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDERS = ("custom_nodes", "input", "models/checkpoints", "output", "temp", "user")
BOOT_SECONDS = 300
RUN_SECONDS = 1800


def python_of(comfyui: Path) -> str:
    """The interpreter that runs a checkout: COMFYUI_PYTHON, its own `.venv`, or the one on the path."""
    own = comfyui / ".venv" / "bin" / "python"
    return os.environ.get("COMFYUI_PYTHON") or (str(own) if own.is_file() else shutil.which("python") or "python3")


class ComfyUI:
    """One server process.

    Args:
        path: of the checkout.
        base: an empty folder for models, outputs and everything else that it writes.
        pack: the folder name that the pack gets there; no name may matter.
        cache: how results are kept between prompts.
    """

    def __init__(self, path: Path, base: Path, pack: str, cache: str = "--cache-none") -> None:
        self.path, self.base, self.pack, self.cache = path, base, pack, cache
        for folder in FOLDERS:
            (base / folder).mkdir(parents=True)
        (base / "custom_nodes" / pack).symlink_to(ROOT, target_is_directory=True)
        self.port = _free_port()
        self.log = base / "log.txt"

    def __enter__(self) -> ComfyUI:
        command = [python_of(self.path), "main.py", "--cpu", "--force-fp32", self.cache]
        command += [
            "--port",
            str(self.port),
            "--base-directory",
            str(self.base),
            "--database-url",
            f"sqlite:///{self.base}/user/comfyui.db",
        ]
        command += ["--disable-auto-launch", "--disable-api-nodes"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=self.path, stdout=log, stderr=subprocess.STDOUT)
        try:
            self.version = self._wait_until_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)

    def _wait_until_up(self) -> str:
        end = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                return self.get("/system_stats")["system"]["comfyui_version"]
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        raise RuntimeError(f"ComfyUI did not start:\n{self.log.read_text()[-4000:]}")

    def get(self, path: str) -> Any:
        """The JSON under a path of the server."""
        return json.loads(self.read(path))

    def read(self, path: str) -> bytes:
        """What lies under a path of the server."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
            return response.read()

    def run(self, prompt: dict[str, Any]) -> dict[str, list[Path]]:
        """Run an API-format graph; the images that it made, by node id."""
        return self._images(self._wait_for(self.post(prompt)))

    def post(self, prompt: dict[str, Any]) -> str:
        """Have an API-format graph checked and queued; its id."""
        return self._send("/prompt", {"prompt": prompt})["prompt_id"]

    def complaints(self, prompt: dict[str, Any]) -> dict[str, list[str]]:
        """What ComfyUI finds wrong with a graph: lines by node id, none where it takes it. Nothing of it is run."""
        answer = self._asked("/prompt", {"prompt": prompt})
        if "prompt_id" in answer:
            self.forget()
        assert answer["node_errors"] or "prompt_id" in answer, answer
        return {
            node_id: [f"{error['message']}: {error['details']}" for error in each["errors"]]
            for node_id, each in (answer["node_errors"] or {}).items()
        }

    def forget(self) -> None:
        """Empty the queue, and stop what runs."""
        self._send("/queue", {"clear": True})
        self._send("/interrupt", {})

    def _send(self, path: str, content: dict[str, Any]) -> Any:
        answer = self._asked(path, content)
        assert not (answer and answer.get("error")), f"ComfyUI refused it: {answer}"
        return answer

    def _asked(self, path: str, content: dict[str, Any]) -> Any:
        """What the server answers, also where it refuses."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(content).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            return json.loads(error.read())

    def _wait_for(self, number: str) -> dict[str, Any]:
        end = time.monotonic() + RUN_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if entry := self.get(f"/history/{number}").get(number):
                assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])[-4000:]
                return entry["outputs"]
            time.sleep(0.2)
        raise RuntimeError(f"ComfyUI did not finish:\n{self.log.read_text()[-4000:]}")

    def _images(self, outputs: dict[str, Any]) -> dict[str, list[Path]]:
        return {
            node_id: [self.base / each["type"] / each["subfolder"] / each["filename"] for each in shown["images"]]
            for node_id, shown in outputs.items()
            if "images" in shown
        }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
