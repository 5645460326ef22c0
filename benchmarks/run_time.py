"""Seconds of `tessera run` of the demo texture, over those of importing torch and diffusers' pipeline. Budget: 2.5.

Both are whole processes, taken in turns; the lowest of each counts, since other load only adds.

    python benchmarks/run_time.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUDGET = 2.5
WORKFLOW = Path(__file__).parents[1] / "example_workflows" / "seamless_texture.json"


def seconds(*arguments: str) -> float:
    """Seconds of one Python process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        run = ("-m", "tessera.app.cli.main", "run", str(WORKFLOW), "--output-dir", folder)
        pairs = [
            (seconds("-c", "import torch; from diffusers import StableDiffusionPipeline"), seconds(*run))
            for _ in range(rounds)
        ]
    imported, ran = (min(column) for column in zip(*pairs, strict=True))
    print(f"import {imported:.2f} s, run {ran:.2f} s")
    print(f"ratio {ran / imported:.2f}, budget {BUDGET}")


if __name__ == "__main__":
    main()
