"""The nodes' texts, and the words of the views in `web/js`, in the shape that ComfyUI's translators use.

`python -m tessera.tools.locales` writes `locales/<language>/nodeDefs.json` and `main.json`: English from the nodes and
the JavaScript, the other languages by the tables in `tools/translations`, which hold each English text once. An English
text that has changed has no translation any more: it is named, like those that are no longer used, and a test fails
until the table has it. Choices of combo boxes are values in files; ComfyUI does not translate them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..nodes import NODES

ROOT = Path(__file__).parents[1]
LOCALES = ROOT / "locales"
TRANSLATIONS = Path(__file__).parent / "translations"
LANGUAGES = ("zh", "ja", "de")
CATEGORIES = ("Tessera", "tiling", "maps", "image prompts")
"""Categories of the menu that ComfyUI has no words for."""
SAID = re.compile(r'\bsay\(\s*"([^"]+)"')
MODES = re.compile(r"MODES = .*?\((\[.*?\])\)")
Texts = dict[str, Any]


def node_definitions(say: Callable[[str], str] = str) -> Texts:
    """Return the names, descriptions and tooltips of all nodes by node id, each text through `say`."""
    return {schema.node_id: _texts(schema, say) for schema in (node.define_schema() for node in NODES)}


def _texts(schema: Any, say: Callable[[str], str]) -> Texts:
    return {
        "display_name": say(schema.display_name),
        "description": say(schema.description),
        "inputs": {i.id: {"name": say(i.display_name or i.id), "tooltip": say(i.tooltip)} for i in schema.inputs},
        "outputs": {
            str(n): {"name": say(o.display_name), "tooltip": say(o.tooltip)} for n, o in enumerate(schema.outputs)
        },
    }


def interface_words(say: Callable[[str], str] = str) -> Texts:
    """Return the categories of the menu and the words of the views, each through `say`."""
    sources = [path.read_text("utf-8") for path in sorted((ROOT / "web" / "js").glob("*.js"))]
    views = [word for source in sources for word in SAID.findall(source)]
    modes = [mode for source in sources for found in MODES.findall(source) for mode in json.loads(found)]
    return {
        "nodeCategories": {name: say(name) for name in CATEGORIES},
        "tesseraViews": {word: say(word) for word in sorted({*views, *modes})},
    }


def files(say: Callable[[str], str] = str) -> dict[str, Texts]:
    """Return the files of a language by name."""
    return {"nodeDefs.json": node_definitions(say), "main.json": interface_words(say)}


def table(language: str) -> dict[str, str]:
    """Return the translations of a language by English text."""
    return json.loads((TRANSLATIONS / f"{language}.json").read_text("utf-8"))


def english_texts() -> set[str]:
    """Return every text that a language translates."""
    said: set[str] = set()
    files(lambda text: said.add(text) or text)
    return said


def stale(language: str) -> Iterator[str]:
    """Say what a table lacks, and what it has for nothing."""
    known, wanted = set(table(language)), english_texts()
    yield from (f"{language} has no translation of: {text}" for text in sorted(wanted - known))
    yield from (f"{language} translates a text that is gone: {text}" for text in sorted(known - wanted))


def write() -> None:
    """Bring `locales` up to date; texts without a translation stay English."""
    for language in ("en", *LANGUAGES):
        known = {} if language == "en" else table(language)
        folder = LOCALES / language
        folder.mkdir(exist_ok=True)
        for name, texts in files(lambda text, known=known: known.get(text, text)).items():
            (folder / name).write_text(json.dumps(texts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
    for each in LANGUAGES:
        for line in stale(each):
            print(line)
