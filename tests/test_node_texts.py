"""Every node explains itself: description, tooltips, search words, a help page, an up-to-date locale file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tessera.nodes import NODES
from tessera.tools.locales import LANGUAGES, LOCALES, english_texts, files, stale, table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "web" / "docs"
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
NUMBERS = ("INT", "FLOAT")

schemas = pytest.mark.parametrize("schema", [pytest.param(s, id=s.node_id) for s in (n.define_schema() for n in NODES)])


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_locale_files_are_up_to_date(language: str) -> None:
    known = {} if language == "en" else table(language)
    for name, texts in files(lambda text: known.get(text, text)).items():
        found = json.loads((LOCALES / language / name).read_text("utf-8"))
        assert found == texts, "run: python -m tessera.tools.locales"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_lacks_nothing_that_english_has(language: str) -> None:
    assert not list(stale(language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_keeps_the_names_that_are_values(language: str) -> None:
    """Choices, files and placeholders are what users type or see, in every language."""
    names = re.compile(r"\b[a-z]+_[a-z_0-9]+\b|%\w+%|models/\w+|\b[a-z]+=[\d.]+|\b(?:auto|brick|nag|png16|webp|sde)\b")
    known = table(language)
    for text in english_texts():
        for name in names.findall(text) if " " in text else []:
            assert name in known[text], (text, name)


@schemas
def test_node_describes_itself_in_one_sentence(schema: Any) -> None:
    assert re.fullmatch(r"[A-Z][^.]*(\.\d[^.]*)*\.", schema.description)
    assert schema.category.split("/")[0] == "Tessera"
    assert schema.display_name
    assert schema.search_aliases


@schemas
def test_every_input_and_output_says_what_it_is(schema: Any) -> None:
    for entry in schema.inputs:
        assert entry.tooltip.endswith("."), entry.id
    for output in schema.outputs:
        assert output.display_name
        assert output.tooltip.endswith("."), output.display_name


@schemas
def test_numbers_have_limits(schema: Any) -> None:
    for entry in schema.inputs:
        if entry.get_io_type() in NUMBERS:
            assert entry.min <= entry.default <= entry.max, entry.id


@schemas
def test_help_page_names_every_input(schema: Any) -> None:
    page = (DOCS / f"{schema.node_id}.md").read_text("utf-8")
    for entry in schema.inputs:
        assert re.search(rf"\b{re.escape(entry.id)}\b", page), entry.id


@schemas
def test_help_page_shows_what_the_node_does(schema: Any) -> None:
    page = DOCS / f"{schema.node_id}.md"
    images = IMAGE.findall(page.read_text("utf-8"))
    assert images
    for alt, target in images:
        assert (page.parent / target).is_file(), target
        assert len(alt.split()) >= 3, f"{target}: say what the image shows"


@schemas
def test_the_table_of_nodes_names_it(schema: Any) -> None:
    row = f"[{schema.display_name}](web/docs/{schema.node_id}.md)"
    assert row in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "demo").rglob("*.md"))], ids=lambda page: page.name
)
def test_images_of_a_page_are_there(page: Path) -> None:
    for alt, target in IMAGE.findall(page.read_text("utf-8")):
        assert (page.parent / target).is_file(), target
        assert alt


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "ipadapter",
            {"TesseraLoadIPAdapter", "TesseraImagePrompt", "TesseraApplyImagePrompts", "TesseraSaveReference"},
        ),
        ("ip-adapter", {"TesseraLoadIPAdapter", "TesseraImagePrompt", "TesseraApplyImagePrompts"}),
        ("tile", {"TesseraSeamlessModel", "TesseraSeamlessVAE", "TesseraWrapPad"}),
        ("texture", {"TesseraSeamlessModel", "TesseraSeamlessVAE"}),
        ("seamless", {"TesseraSeamlessModel", "TesseraSeamlessVAE", "TesseraOffsetImage"}),
        ("upscale", {"TesseraWrapPad", "TesseraWrapCrop"}),
    ],
)
def test_a_word_that_people_type_finds_the_nodes(word: str, expected: set[str]) -> None:
    found = {schema.node_id for schema in (n.define_schema() for n in NODES) if word in schema.search_aliases}
    assert found >= expected


def test_no_page_without_a_node() -> None:
    assert {page.stem for page in DOCS.glob("*.md")} == {node.define_schema().node_id for node in NODES}
