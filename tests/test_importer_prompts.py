"""Prompts in requests: literal, with the words of styles, and with embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from importing import (
    PROMPT,
    imported,
    nodes_in,
    outcomes,
    sampler,
)
from tessera.app.services.bodies.parameters import MAPPED, NO_EFFECT, NOT_YET
from tessera.app.services.drawing.build import LONE_BACKSLASH, literal
from tessera.host import folder_paths
from tessera.host.graph.dynamic_prompts import dynamic_prompt
from tessera.host.schema.object_info import ObjectInfo


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectInfo]:
    yield from nodes_in(tmp_path_factory.mktemp("importer"))


@given(st.text() | st.text("\\{}|a ", max_size=12))
def test_prompt_arrives_as_it_was_sent(text: str) -> None:
    sent = text.replace("/", "")
    parted = LONE_BACKSLASH.sub(r"\1 ", sent)
    assert dynamic_prompt(literal(sent)) == parted
    assert parted == sent or "\\" in sent


def test_a_backslash_before_a_brace_is_parted_from_it() -> None:
    assert dynamic_prompt(literal(r"a \{b|c} \\{d}")) == r"a \ {b|c} \\{d}"


def test_comment_signs_stay_in_a_prompt() -> None:
    assert dynamic_prompt(literal("see http://a.b /* c */")) == "see http:/ /a.b / * c */"


@pytest.fixture
def embedding() -> Iterator[None]:
    """The file zig in models/embeddings."""
    path = Path(folder_paths.models_dir) / "embeddings" / "zig.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    yield
    path.unlink()


@pytest.mark.usefixtures("embedding")
def test_styles_and_triggers_change_the_prompt(info: ObjectInfo) -> None:
    body = PROMPT | {"style_preset": "anime", "textual_inversions": {"zig": "zigzag"}, "prompt_2": "moss"}
    sampled = imported("octoai", body, info)[2]
    text = sampled[sampler(sampled)["positive"][0]]["inputs"]["text"]
    assert text.startswith("white and teal embedding:zig, moss, anime drawing")


@pytest.mark.usefixtures("embedding")
@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("white zigzag", "white embedding:zig"),
        ("zigzag.", "embedding:zig ."),
        ("(zigzag:1.2), [zigzag]", "(embedding:zig:1.2), [embedding:zig]"),
        ('"zigzag" zigzags', '" embedding:zig " zigzags'),
        ("moss", "moss"),
    ],
)
def test_trigger_words_name_embeddings(info: ObjectInfo, prompt: str, named: str) -> None:
    body = {"prompt": prompt, "negative_prompt": prompt, "textual_inversions": {"zig": "zigzag"}}
    _, lines, made = imported("octoai", body, info)
    texts = [made[sampler(made)[side][0]]["inputs"]["text"] for side in ("positive", "negative")]
    assert texts == [named, named]
    assert outcomes(lines)["textual_inversions"] == (NO_EFFECT if prompt == named else MAPPED)


@pytest.mark.usefixtures("embedding")
def test_an_embedding_without_a_word_is_its_own_word_and_one_without_a_file_is_said(info: ObjectInfo) -> None:
    body = {"prompt": "a zig of zags", "textual_inversions": {"zig": None, "zag": "zags"}}
    _, lines, made = imported("octoai", body, info)
    assert made[sampler(made)["positive"][0]]["inputs"]["text"] == "a embedding:zig of zags"
    said = next(line for line in lines if line.name == "textual_inversions")
    assert (said.outcome, '"zag"' in said.text) == (NOT_YET, True)
