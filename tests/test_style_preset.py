"""Style Preset: the services' names, our words, and a thumbnail for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from naming import naming
from PIL import Image
from tessera.app.services.hosted.styles import LEONARDO_STYLES, OCTOAI_STYLES
from tessera.host import folder_paths
from tessera.images.sheets import cell_of
from tessera.nodes.style_preset import COLUMNS, THUMBNAILS, TesseraStylePreset
from tessera.prompts.styles import PHOTO_WORDS, STYLES, styled


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> Any:
    folder_paths.configure(output_dir=str(tmp_path / "output"))
    yield
    folder_paths.configure()


def test_every_name_of_the_services_is_there_once() -> None:
    style: Any = TesseraStylePreset.define_schema().inputs[1]
    assert sorted(style.options) == sorted([*LEONARDO_STYLES, *OCTOAI_STYLES, *PHOTO_WORDS])
    assert len(set(style.options)) == len(style.options)


@pytest.mark.parametrize("style", STYLES)
def test_words_come_behind_the_prompt_once(style: str) -> None:
    made = styled("a fox", style)
    assert made == ", ".join(part for part in ("a fox", STYLES[style]) if part)
    assert styled("", style) == STYLES[style]


@pytest.mark.parametrize("prompt", ["a fox,", " a  fox ", "a fox, "])
def test_the_node_tidies_the_prompt_and_shows_what_it_made(prompt: str) -> None:
    output = TesseraStylePreset.execute(prompt, "pixel-art")
    assert output.args[0] == f"a fox, {STYLES['pixel-art']}" and output.args[1] == STYLES["pixel-art"]
    look: Any = output.ui
    assert look["text"] == (output.args[0],) and len(look["images"]) == 1


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ValueError, match=naming("style", "moss", "cinematic")):
        styled("a fox", "moss")


def test_every_style_has_a_thumbnail_of_its_own_place() -> None:
    cells = [cell_of(THUMBNAILS, number, COLUMNS, len(STYLES)) for number in range(len(STYLES))]
    with Image.open(THUMBNAILS) as sheet:
        rows = -(-len(STYLES) // COLUMNS)
        assert {tuple(cell.shape[1:3]) for cell in cells} == {(sheet.height // rows, sheet.width // COLUMNS)}
    assert all(float(cell.std()) > 0.05 for cell in cells)
