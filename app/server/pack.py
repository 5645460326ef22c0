"""What the pack gives the editor: help pages, scripts, examples, texts, subgraphs. ComfyUI serves the same folders."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from ..registry import PACK as NAME

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
EXAMPLES = ROOT / "example_workflows"
SUBGRAPHS = ROOT / "subgraphs"
LOCALES = ROOT / "locales"
MODULE = f"custom_nodes.{NAME}"


def scripts() -> list[str]:
    """Return the addresses of the pack's scripts."""
    return [f"/extensions/{NAME}/{path.relative_to(WEB).as_posix()}" for path in sorted(WEB.rglob("*.js"))]


def examples() -> dict[str, list[str]]:
    """Return the names of the example workflows, by pack."""
    names = sorted(path.stem for path in EXAMPLES.glob("*.json"))
    return {NAME: names} if names else {}


@functools.cache
def texts() -> dict[str, Any]:
    """Return the nodes' texts by language: `main.json` with the other files of a folder under their names."""
    found: dict[str, Any] = {}
    for folder in sorted(path for path in LOCALES.iterdir() if path.is_dir()):
        main = _read(folder / "main.json")
        parts = {name: _read(folder / f"{name}.json") for name in ("nodeDefs", "commands", "settings")}
        found[folder.name] = main | {name: part for name, part in parts.items() if part}
    return found


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@functools.cache
def subgraphs() -> dict[str, Path]:
    """Return the files of the subgraphs that the editor offers, by id."""
    files = sorted(SUBGRAPHS.glob("*.json"))
    return {hashlib.sha256(f"{NAME}/{path.name}".encode()).hexdigest(): path for path in files}


def subgraph_entry(path: Path) -> dict[str, Any]:
    """Return what a list says of a subgraph."""
    return {"source": "custom_node", "name": path.stem, "info": {"node_pack": MODULE}}
