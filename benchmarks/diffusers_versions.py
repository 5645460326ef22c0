"""The scheduler tests with other versions of diffusers, from the lower bound in requirements.txt to the newest.

Each version is installed into a folder of its own that comes first on Python's path; everything else stays as it is.

    python benchmarks/diffusers_versions.py
    python benchmarks/diffusers_versions.py 0.35.0 0.42.1 -k 8-leading
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ["0.35.0", "0.35.2", "0.36.0", "0.37.1", "0.38.0", "0.39.0", "0.40.0", "0.41.0", "0.42.1"]
TESTS = ["tests/test_scheduler_parity.py", "tests/test_scheduler_sampler.py"]


def install(version: str, folder: Path) -> None:
    """Put one version into a folder."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, f"diffusers=={version}"], check=True)


def run(version: str, folder: Path, chosen: str) -> str:
    """The tests' last line, after a check that they see the version."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    look = [sys.executable, "-c", "import diffusers; print(diffusers.__version__)"]
    seen = subprocess.run(look, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    if seen != version:
        raise RuntimeError(f"Python sees diffusers {seen}, expected {version}; run this from another folder.")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *TESTS,
        *(["-k", chosen] if chosen else []),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "\n".join([done.stdout.strip().splitlines()[-1], *failed])


def main() -> None:
    """Install, test and print, one version after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    parser.add_argument("-k", dest="chosen", default="", help="only these tests, as for pytest")
    args = parser.parse_args()
    for version in args.versions:
        with tempfile.TemporaryDirectory() as folder:
            install(version, Path(folder))
            print(f"diffusers {version}: {run(version, Path(folder), args.chosen)}", flush=True)


if __name__ == "__main__":
    main()
