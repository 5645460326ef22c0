"""Prompts written better by rule and by small random text models: words, bounds, seeds, and what is refused."""

from __future__ import annotations

import json
import random
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naming import naming
from safetensors.torch import load_file, save_file
from tessera.host import folder_paths
from tessera.nodes.enhance_prompt import TesseraEnhancePrompt
from tessera.prompts.folders import EXTRA, find_models, weight_files
from tessera.prompts.rules import add_words
from tessera.prompts.texts import answer, bounded, first_line, one_line
from tessera.prompts.writing import CANDIDATES, Draw, write
from tiny_text_models import READS, WORDS, gpt2_folder, llama_folder

PROMPT = "old stone river"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("models")
    gpt2_folder(root / "text_generation" / "goes-on-1.5")
    llama_folder(root / "text_generation" / "owner" / "chat")
    folder_paths.configure(str(root))
    yield root / "text_generation"
    folder_paths.configure()


@pytest.fixture(params=["goes-on-1.5", "owner/chat"])
def folder(request: pytest.FixtureRequest, models: Path) -> Path:
    return models / request.param


@pytest.fixture
def copied(models: Path, tmp_path: Path) -> Path:
    """A model that a test may spoil."""
    return Path(shutil.copytree(models / "goes-on-1.5", tmp_path / "copied"))


def enhanced(prompt: str, model: str = "rules", instructions: str = "", **options: Any) -> str:
    given = {"seed": 0, "max_words": 60, "temperature": 0.8} | options
    (text,) = TesseraEnhancePrompt.execute(prompt, model, instructions, **given).args
    assert isinstance(text, str)
    return text


def change_config(folder: Path, **change: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@given(st.text(), st.integers(0, 2**64 - 1), st.integers(1, 20))
def test_rules_keep_the_prompt_and_add_a_few_words(prompt: str, seed: int, most: int) -> None:
    text = add_words(prompt, seed, most)
    kept = one_line(prompt).rstrip(" ,;.")
    assert text.startswith(kept)
    assert len(text[len(kept) :].split()) <= most + 1
    assert text == one_line(text)
    assert text == add_words(prompt, seed, most)


def test_rules_add_what_is_left_open() -> None:
    assert len({add_words("a cat in the snow", seed) for seed in range(200)}) == 72
    assert add_words("a cat, sharp focus, low light, detailed, portrait, red") == (
        "a cat, sharp focus, low light, detailed, portrait, red"
    )
    assert (
        add_words("red moss,\n evening light,", max_words=5) == "red moss, evening light, finely detailed, sharp focus"
    )
    again = add_words("a cat in the snow", 5)
    assert add_words(again, 7) == again


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("A wet stone.\nUnder moss.", "A wet stone. Under moss."),
        ('Here is the enhanced prompt:\n\n"A wet stone"', "A wet stone"),
        ("Sure! Here it is: a wet stone", "a wet stone"),
        ("**Prompt:** a wet stone", "a wet stone"),
        ("<think>A stone?\n\nYes: wet.</think>\n\na wet stone", "a wet stone"),
        ("a stone: wet, on moss", "a stone: wet, on moss"),
        ("a\tstone\x00\ufffd \u2028of wool", "a stone of wool"),
        ('"', '"'),
        ("<think>", "<think>"),
        (" \n ", ""),
    ],
)
def test_answers_become_one_line(said: str, kept: str) -> None:
    assert answer(said) == kept


def test_continuations_end_with_their_line() -> None:
    assert first_line("\n , of wool \n more") == " , of wool"
    assert first_line("y\twool\nmore") == "y wool"
    assert first_line(" \n") == ""


@given(st.lists(st.sampled_from(WORDS), min_size=1), st.integers(1, 12), st.booleans())
def test_texts_are_bounded(words: list[str], most: int, ended: bool) -> None:
    text = bounded(" ".join(words), most, ended)
    assert len(text.split()) <= most
    assert " ".join(words).startswith(text)
    if ended and len(words) <= most:
        assert text == " ".join(words)


def test_seed_decides(folder: Path) -> None:
    texts = [write(folder, PROMPT, seed=seed, max_words=5) for seed in (0, 1, 2**64 - 1, 0)]
    assert texts[0] == texts[-1]
    assert len(set(texts)) == 3
    one, other = (write(folder, PROMPT, seed=seed, max_words=5, temperature=0) for seed in (1, 2))
    assert one == other


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_draws_come_as_often_as_their_probability(temperature: float) -> None:
    scores = torch.randn(80, generator=torch.Generator().manual_seed(1))
    likely = scores.topk(CANDIDATES)
    drawn = Draw(4, temperature, lambda: None)(torch.empty(0), scores.expand(40_000, -1)).argmax(-1)
    share = drawn.bincount(minlength=80) / len(drawn)
    assert torch.allclose(share[likely.indices], (likely.values / temperature).softmax(0), atol=0.01)
    assert not set(drawn.tolist()) - set(likely.indices.tolist())


def test_nothing_is_drawn_from_shared_random_numbers(folder: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)["state"]["key"].copy()
    write(folder, PROMPT, seed=8, max_words=5)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state(legacy=False)["state"]["key"])


def test_nothing_is_asked_of_a_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address))
    write(folder, PROMPT, max_words=5)
    assert not asked


def test_a_model_without_a_template_goes_on_with_the_prompt(models: Path) -> None:
    texts = [enhanced("old,\n stone  river ", "goes-on-1.5", seed=seed, max_words=4) for seed in range(4)]
    assert all(text.startswith("old, stone river ") and 4 <= len(text.split()) <= 7 for text in texts)


@pytest.mark.usefixtures("models")
def test_a_chat_model_writes_by_the_instructions() -> None:
    # A random model may say the same to both once, hardly four times.
    one, other = (
        [enhanced(PROMPT, "owner/chat", words, seed=seed, max_words=5) for seed in range(4)]
        for words in ("wet wool", "")
    )
    assert one != other
    assert not any(text.startswith(PROMPT) for text in one)
    assert max(len(text.split()) for text in [*one, *other]) <= 5


def test_what_comes_before_a_token_may_end_the_writing(folder: Path) -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        write(folder, PROMPT, before_token=stop)


def test_models_are_found_below_their_folder(models: Path, tmp_path: Path) -> None:
    (models / "owner" / "chat" / "more").mkdir(exist_ok=True)
    (models / "owner" / "chat" / "more" / "config.json").write_text("{}")
    assert list(find_models([models, tmp_path])) == ["goes-on-1.5", "owner/chat"]
    options = next(each for each in TesseraEnhancePrompt.define_schema().inputs if each.id == "model").options
    assert options == ["rules", "goes-on-1.5", "owner/chat"]


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("name", ["gone", "../text_generation/goes-on-1.5", "owner", "", ".", "owner/../goes-on-1.5"])
def test_no_name_leaves_the_folder(name: str) -> None:
    with pytest.raises(ValueError, match=r"^model: found '.*'; expected rules, or a folder in models/text_generation$"):
        enhanced(PROMPT, name)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("prompt", "model", "instructions", "said"),
    [
        (" \n", "rules", "", "prompt: found no words"),
        ("", "owner/chat", "", "prompt: found no words"),
        (PROMPT, "rules", "in winter", naming("instructions", "rules")),
        (PROMPT, "goes-on-1.5", "in winter", naming("goes-on-1.5", "chat template")),
        ("moss " * READS, "goes-on-1.5", "", naming(READS, "tokens")),
        ("moss " * READS, "owner/chat", "", naming(READS, "tokens")),
    ],
)
def test_what_cannot_be_done_is_refused(prompt: str, model: str, instructions: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        enhanced(prompt, model, instructions)
    assert "\n" not in str(caught.value)


def test_a_long_prompt_leaves_less_to_write(models: Path) -> None:
    text = write(models / "goes-on-1.5", "moss " * (READS - 2), seed=1)
    assert READS - 2 <= len(text.split()) <= READS


def test_an_empty_answer_is_an_error_and_not_the_rules(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    weights["transformer.ln_f.weight"] *= 0
    weights["transformer.ln_f.bias"] = weights["transformer.wte.weight"][1] = torch.ones(32)
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=naming("copied", "seed", "temperature", "rules")):
        write(copied, PROMPT, temperature=0)


def spoil_architecture(folder: Path) -> str:
    change_config(folder, architectures=["CLIPModel"])
    return "found the architecture CLIPModel; expected a transformers folder of a causal language model"


def spoil_names(folder: Path) -> str:
    change_config(folder, architectures=None)
    return "found the architecture of no name"


def spoil_json(folder: Path) -> str:
    (folder / "config.json").write_text("{")
    return "config.json cannot be read"


def spoil_pickle(folder: Path) -> str:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return r"found pytorch_model.bin; expected .safetensors"


def spoil_nothing(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "found no weights; expected .safetensors"


def spoil_adapter(folder: Path) -> str:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    return "found an adapter; expected a whole model"


def spoil_index(folder: Path) -> str:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../model.safetensors"}}')
    return "names '../model.safetensors'; expected files of the folder itself"


def spoil_weights(folder: Path) -> str:
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return "1 weights are missing, among them transformer.h.1.mlp.c_fc.weight"


def spoil_file(folder: Path) -> str:
    (folder / "model.safetensors").write_bytes(b"12345678" * 4)
    return "model.safetensors cannot be read; download it again"


def spoil_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").write_text("{}")
    return "expected a transformers folder"


def spoil_code(folder: Path) -> str:
    """A model that brings its own code, which is never run."""
    change_config(folder, model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"})
    (folder / "own.py").write_text("raise SystemExit('run')")
    return "expected a transformers folder"


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_architecture,
        spoil_names,
        spoil_json,
        spoil_pickle,
        spoil_nothing,
        spoil_adapter,
        spoil_index,
        spoil_weights,
        spoil_file,
        spoil_tokenizer,
        spoil_code,
    ],
)
def test_folders_that_hold_no_text_model_are_named(copied: Path, spoil: Any) -> None:
    expected = spoil(copied)
    with pytest.raises(ValueError, match=expected) as caught:
        write(copied, PROMPT)
    assert str(caught.value).startswith("copied: ")
    assert "\n" not in str(caught.value)


def test_the_extra_is_named_where_transformers_is_missing(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.models.auto.modeling_auto", None)
    with pytest.raises(ModuleNotFoundError, match=r"tessera-nodes\[text\]"):
        weight_files(copied)
    assert enhanced(PROMPT).startswith(PROMPT)
    assert "\n" not in EXTRA
