"""The tests with every Python that pyproject.toml allows and this machine has, and with the lower bounds it states.

Each run installs the pack into an environment of its own, which is deleted afterwards. On Linux that is some GB of
torch, unless pip is pointed to a smaller build (`PIP_FIND_LINKS`, `PIP_EXTRA_INDEX_URL`).

    python benchmarks/python_versions.py                              every Python that is found, newest packages
    python benchmarks/python_versions.py 3.10 3.13                    these
    python benchmarks/python_versions.py 3.11 --lower-bounds          every package at the lower bound of pyproject.toml
    python benchmarks/python_versions.py 3.12 -- -m quick -x          what follows goes to pytest
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
VERSIONS = ["3.10", "3.11", "3.12", "3.13"]
# Of a requirement: the name without its extras, the lower bound, the marker.
REQUIREMENT = re.compile(r"^(?P<name>[\w.-]+)(?:\[[^]]*\])?\s*>=\s*(?P<bound>[\w.]+)\s*(?P<marker>;.*)?$")


def candidates(version: str) -> Iterator[str]:
    """Programs that may be a Python of this version: this one, those on the path, those of pyenv."""
    yield sys.executable
    yield f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from sorted(map(str, pyenv.glob(f"{version}.*/bin/python")), reverse=True)


def find(version: str) -> str | None:
    """A Python of this version that starts (a shim of pyenv is there also where it does not)."""
    look = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates(version):
        program = shutil.which(candidate)
        if program is None:
            continue
        done = subprocess.run([program, "-c", look], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return program
    return None


def lower_bounds() -> list[str]:
    """Every requirement of pyproject.toml, extras too, at its lower bound, as lines of a constraints file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    found = [REQUIREMENT.match(each) for each in stated if not each.startswith(project["name"])]
    wrong = [each for each in found if each is None]
    if wrong:
        raise SystemExit("pyproject.toml has a requirement without a lower bound, expected `name>=version`")
    highest: dict[str, re.Match[str]] = {}
    for each in filter(None, found):
        known = highest.get(each["name"])
        if known is None or _numbers(known["bound"]) < _numbers(each["bound"]):
            highest[each["name"]] = each
    return sorted(f"{each['name']}=={each['bound']}{each['marker'] or ''}" for each in highest.values())


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def install(python: str, folder: Path, constraints: Path) -> Path:
    """Make an environment with the pack and what its tests need; returns its Python."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    inside = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(constraints), "-e", f"{ROOT}[test]"], check=True)
    return inside


def run(python: str, chosen: list[str], lowest: bool) -> str:
    """Install and test; the last line of the tests, and those that failed."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = ROOT / "constraints.txt"
        if lowest:
            constraints = Path(folder) / "lower_bounds.txt"
            constraints.write_text("\n".join(lower_bounds()) + "\n", encoding="utf-8")
        inside = install(python, Path(folder) / "env", constraints)
        command = [str(inside), "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
    return "\n".join([lines[-1], *(line for line in lines if line.startswith(("FAILED", "ERROR")))])


def main() -> None:
    """Find, install, test and print, one version after the other."""
    own = sys.argv[1:]
    chosen = own[own.index("--") + 1 :] if "--" in own else []
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=VERSIONS, help="of Python; all by default")
    parser.add_argument(
        "--lower-bounds", action="store_true", help="with the oldest packages that pyproject.toml allows"
    )
    args = parser.parse_args(own[: own.index("--")] if "--" in own else own)
    for version in args.versions:
        python = find(version)
        result = "not found on this machine" if python is None else run(python, chosen, args.lower_bounds)
        print(f"Python {version}: {result}", flush=True)


if __name__ == "__main__":
    main()
