"""A batch on a real ComfyUI, which is killed and started again meanwhile, compared with the embedded host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from comfyui.server import ComfyUI
from PIL import Image

pytestmark = pytest.mark.comfyui
if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to compare the embedded host with the real one"
    pytest.skip(reason, allow_module_level=True)

ROOT = Path(__file__).parents[2]
JOBS = 20
LONGEST_SECONDS = 1800


def start(base: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    workflow = str(ROOT / "example_workflows" / "seamless_texture.json")
    command = [sys.executable, "-m", "tessera.app.cli.main", "batch", workflow, "table.csv", "--set", "6.steps=6"]
    return subprocess.Popen([*command, "--output-dir", name, *options], cwd=base)


def images(folder: Path) -> dict[str, np.ndarray]:
    """The first image of each job, by the job's seed."""
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len(lines) == JOBS and not [line["error"] for line in lines if line["error"]]
    return {line["inputs"]["6.seed"]: np.asarray(Image.open(folder / line["files"][0]), float) for line in lines}


def test_batch_on_comfyui_equals_the_embedded_one_and_survives_a_restart(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("seed\n" + "".join(f"{seed}\n" for seed in range(JOBS)))
    assert start(tmp_path, "embedded").wait(LONGEST_SECONDS) == 0
    server = ComfyUI(Path(os.environ["COMFYUI_PATH"]), tmp_path / "base", "pack")
    with server:
        batch = start(tmp_path, "served", "--engine", f"http://127.0.0.1:{server.port}")
        results = tmp_path / "served" / "results.jsonl"
        while not results.exists() or results.read_bytes().count(b"\n") < JOBS // 4:
            assert batch.poll() is None
            time.sleep(0.02)
        server.process.kill()
        server.process.wait(60)
    with server:
        assert batch.wait(LONGEST_SECONDS) == 0
    embedded, served = images(tmp_path / "embedded"), images(tmp_path / "served")
    assert embedded.keys() == served.keys()
    differences = [abs(embedded[seed] - served[seed]).mean() for seed in embedded]
    print(f"\n{JOBS} jobs, ComfyUI killed once: images differ by {max(differences):.5f} of 255 at most")
    assert max(differences) <= 1
