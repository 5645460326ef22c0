"""What the pack gives the editor: help pages, scripts, examples, texts, subgraphs. ComfyUI serves the same folders."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ..registry import PACK as NAME

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
EXAMPLES = ROOT / "example_workflows"
SUBGRAPHS = ROOT / "subgraphs"
LOCALES = ROOT / "locales"
MODULE = f"custom_nodes.{NAME}"
TITLE = "Tessera"
FIRST = "seamless_texture"
HOW_TO_RUN = "The demo model ships"


def scripts() -> list[str]:
    """Return the addresses of the pack's scripts."""
    return [f"/extensions/{NAME}/{path.relative_to(WEB).as_posix()}" for path in sorted(WEB.rglob("*.js"))]


@functools.cache
def templates() -> list[dict[str, Any]]:
    """Return the examples as the category that the editor's dialog shows: one that is first, the others by title."""
    entries = [_template(path) for path in EXAMPLES.glob("*.json")]
    entries.sort(key=lambda each: (each["name"] != FIRST, each["title"]))
    return [{"moduleName": "default", "title": TITLE, "type": "image", "isEssential": True, "templates": entries}]


def _template(path: Path) -> dict[str, Any]:
    """Return what the dialog shows of an example: its note's first line, and the paragraph below."""
    nodes = _read(path)["nodes"]
    note = next(node["widgets_values"][0] for node in nodes if node["type"] == "Note")
    title, *paragraphs = note.split("\n\n")
    said = next(each for each in paragraphs if not each.startswith(HOW_TO_RUN))
    shown = {"mediaType": "image", "mediaSubtype": "jpg"}
    return {"name": path.stem, "title": title, "description": said.removeprefix("Press Run. ")} | shown


def template_file(name: str) -> Path | None:
    """Return the file of a template, or its thumbnail for `<name>-1.jpg`; None where there is none."""
    path = EXAMPLES / re.sub(r"-1\.jpg$", ".jpg", name)
    return path if path in EXAMPLES.iterdir() else None


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
