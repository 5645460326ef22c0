"""Prompts to tokens to embeddings, against ComfyUI's own results and against transformers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from double_precision import double_precision
from hypothesis import given
from hypothesis import strategies as st
from margins import within
from naming import naming
from safetensors.torch import save_file
from tessera.host.text.clip import CLIP
from tessera.host.text.clip_model import CLIPTextModel
from tessera.host.text.clip_tokens import CLIP_MERGES, clip_vocabulary, read_merges
from tessera.host.text.encoders import apply_weights
from tessera.host.text.loading import TextWeights, flux_clip, read_text_weights, sd1_clip, sdxl_clip
from tessera.host.text.prompt_syntax import parse_weights
from tessera.host.text.tokenizer import clip_prompt_tokenizer, t5_prompt_tokenizer
from tiny_models import SDXL_SECOND, save_t5_tokenizer, t5_weights, text_config, text_weights

GOLDEN = json.loads((Path(__file__).parent / "data" / "comfyui_text.json").read_text())
START, END = 49406, 49407


def expand(chunks: list[list[tuple[Any, float, int]]]) -> list[list[tuple[Any, float]]]:
    """The golden file's runs as single tokens."""
    return [[(token, weight) for token, weight, times in chunk for _ in range(times)] for chunk in chunks]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CLIP]:
    """The models that the golden file's embeddings were computed with."""
    folder = tmp_path_factory.mktemp("t5")
    save_t5_tokenizer(folder)
    first = TextWeights(text_weights(text_config()))
    second = TextWeights(text_weights(SDXL_SECOND, 5), openclip=True)
    return {
        "sd1": sd1_clip(first, [str(folder)]),
        "sdxl": sdxl_clip(first, second, [str(folder)]),
        "flux": flux_clip(first, TextWeights(t5_weights(32128)), folder, [str(folder)]),
    }


@pytest.mark.parametrize("index", range(len(GOLDEN["prompts"])))
def test_tokens_are_comfyuis(index: int, tmp_path: Path) -> None:
    prompt, wanted = GOLDEN["prompts"][index], expand(GOLDEN["tokens"]["clip"][index])
    folders = [str(tmp_path)]
    assert clip_prompt_tokenizer(embedding_directories=folders).tokenize_with_weights(prompt) == wanted
    padded = clip_prompt_tokenizer(pad=None, embedding_directories=folders).tokenize_with_weights(prompt)
    assert [[END if t == 0 else t for t, _ in chunk] for chunk in padded] == [[t for t, _ in c] for c in wanted]


@pytest.mark.parametrize("family", ["sd1", "sdxl", "flux"])
def test_embeddings_are_comfyuis(clips: dict[str, CLIP], family: str) -> None:
    rows = [row for row in GOLDEN["embeddings"] if row["family"] == family]
    for row in rows:
        tokens: dict[str, Any] = {"l": expand(GOLDEN["tokens"]["clip"][row["prompt"]])}
        tokens["g"] = clips["sdxl"].tokenize(GOLDEN["prompts"][row["prompt"]])["g"]
        tokens["t5xxl"] = expand(GOLDEN["tokens"]["t5xxl"][row["prompt"]])
        clip = clips[family].clone()
        unprojected = row["layer"] == "u"
        clip.clip_layer(None if unprojected else row["layer"])
        # In float64, so that all that rounds is what ComfyUI rounded.
        clip.cond_stage_model.double()
        with double_precision():
            cond, pooled = clip.encode_from_tokens(tokens, return_pooled="unprojected" if unprojected else True)
        clip.cond_stage_model.float()
        assert cond.dtype == torch.float64
        assert list(cond.shape) == row["shape"]
        for got, wanted in ((cond, row["cond"]), (pooled, row["pooled"])):
            places = torch.linspace(0, got.numel() - 1, len(wanted)).long()
            assert within((got.flatten()[places] - torch.tensor(wanted, dtype=torch.float64)).abs().max(), 1e-4)
    assert len(rows) >= 30


def test_vocabulary_is_openais() -> None:
    vocabulary = clip_vocabulary(read_merges(CLIP_MERGES))
    assert len(vocabulary) == 49408
    known = {"!": 0, "!</w>": 256, "cat</w>": 2368, "<|startoftext|>": START, "<|endoftext|>": END}
    assert {token: vocabulary[token] for token in known} == known


def without_brackets(text: str) -> str:
    """The rest of a text."""
    return text.replace("(", "").replace(")", "")


@given(st.text(alphabet="ab() ", max_size=40))
def test_every_letter_is_kept(prompt: str) -> None:
    segments = parse_weights(prompt)
    assert all(text for text, _ in segments)
    assert without_brackets("".join(text for text, _ in segments)) == without_brackets(prompt)


@given(st.lists(st.sampled_from(["a", "b c"]), min_size=1, max_size=6), st.floats(-2, 2).map(lambda x: round(x, 3)))
def test_brackets_multiply_and_numbers_replace(texts: list[str], weight: float) -> None:
    prompt = "".join(f"({text} " for text in texts) + ")" * len(texts)
    assert parse_weights(prompt) == [(f"{t} ", pytest.approx(1.1 ** (n + 1))) for n, t in enumerate(texts)]
    assert parse_weights(f"({prompt}:{weight})")[0] == (f"{texts[0]} ", pytest.approx(weight * 1.1))


@given(st.lists(st.sampled_from(["moss", "(red:1.2)", "antidisestablishmentarianism", "((x))", "\\(", "1 2 3"])))
def test_chunks_are_whole(words: list[str]) -> None:
    for chunk in clip_prompt_tokenizer().tokenize_with_weights(" ".join(words * 9)):
        tokens = [token for token, _ in chunk]
        assert len(tokens) == 77 and tokens[0] == START and tokens[-1] == END
        first_end = tokens.index(END)
        assert set(tokens[first_end:]) == {END}
        assert all(weight == 1.0 for _, weight in chunk[first_end:])


def test_short_words_are_not_cut() -> None:
    prompt = "word " * 72 + "(seven tokens that stay together here:1.2)"
    numbered = clip_prompt_tokenizer().tokenize_with_weights(prompt, return_word_ids=True)
    assert [{number for _, weight, number in chunk if weight == 1.2} for chunk in numbered] == [set(), {2}]


def test_t5_is_one_chunk_of_at_least_256(tmp_path: Path) -> None:
    tokenizer = t5_prompt_tokenizer(lambda text: [5] * len(text))
    short, long = (tokenizer.tokenize_with_weights("x" * n) for n in (3, 300))
    assert [len(chunk) for chunk in short + long] == [256, 301]
    assert [t for t, _ in short[0]] == [5, 5, 5, 1] + [0] * 252


def test_weight_one_changes_nothing(clips: dict[str, CLIP]) -> None:
    hidden, empty = torch.randn(2, 5, 8), torch.randn(5, 8)
    assert torch.equal(apply_weights(hidden, empty, torch.ones(2, 5)), hidden)
    assert torch.equal(apply_weights(hidden, empty, torch.zeros(2, 5)), empty.expand(2, -1, -1))
    assert torch.equal(clips["sd1"].encode("(moss:1.0) wall"), clips["sd1"].encode("moss wall"))


def test_long_prompts_are_joined_chunks(clips: dict[str, CLIP]) -> None:
    clip = clips["sd1"]
    tokens = clip.tokenize("word " * 100)["l"]
    parts = [clip.encode_from_tokens({"l": [chunk]}) for chunk in tokens]
    torch.testing.assert_close(clip.encode_from_tokens({"l": tokens}), torch.cat(parts, dim=1))


def test_conditioning_has_pooled_text_and_values(clips: dict[str, CLIP]) -> None:
    clip = clips["flux"]
    [[cond, values]] = clip.encode_from_tokens_scheduled(clip.tokenize("moss"), add_dict={"guidance": 3.0})
    assert cond.shape == (1, 256, 32) and values["pooled_output"].shape == (1, 64) and values["guidance"] == 3.0


def test_clip_skip_stays_with_the_clone(clips: dict[str, CLIP]) -> None:
    before = clips["sd1"].encode("moss")
    skipped = clips["sd1"].clone()
    skipped.clip_layer(-2)
    assert not torch.allclose(skipped.encode("moss"), before)
    assert torch.equal(clips["sd1"].encode("moss"), before)


def test_text_model_is_transformers() -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = text_config(128, "gelu", 96)
    reference = CLIPTextModelWithProjection(CLIPTextConfig(**config, eos_token_id=END)).eval()
    ours = CLIPTextModel(config)
    assert not ours.load_state_dict(reference.state_dict(), strict=False).missing_keys
    [chunk] = clip_prompt_tokenizer().tokenize_with_weights("a red brick wall")
    tokens = torch.tensor([[token for token, _ in chunk]])
    with torch.no_grad():
        wanted = reference(tokens, output_hidden_states=True)
        end = [int((tokens[0] == END).nonzero()[0])]
        hidden, _, projected = ours(ours.embed(tokens), end, None, True)
        penultimate = ours(ours.embed(tokens), end, -2, False)[0]
    torch.testing.assert_close(hidden, wanted.last_hidden_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(projected, wanted.text_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(penultimate, wanted.hidden_states[-2], atol=1e-5, rtol=1e-5)


def test_half_precision_weights_are_computed_in_float32() -> None:
    model = CLIPTextModel(text_config())
    model.load_state_dict(text_weights(text_config()))
    rounded = CLIPTextModel(text_config())
    rounded.load_state_dict({key: tensor.half().float() for key, tensor in model.state_dict().items()})
    tokens = torch.tensor([[START, *range(320, 395), END]])
    with torch.no_grad():
        results = [m(m.embed(tokens), [76], None, True)[0] for m in (model.half(), rounded)]
    assert results[0].dtype == torch.float32
    torch.testing.assert_close(*results)


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    """A folder with embeddings for encoders of width 64, and one file outside of it."""
    folder = tmp_path / "embeddings"
    (folder / "sub").mkdir(parents=True)
    save_file({"emb_params": torch.full((2, 64), 3.0)}, folder / "sub" / "moss.safetensors")
    torch.save({"string_to_param": {"*": torch.full((1, 64), 4.0)}}, folder / "old.pt")
    save_file({"emb_params": torch.full((1, 32), 3.0)}, folder / "narrow.safetensors")
    save_file({"emb_params": torch.zeros(1, 64)}, tmp_path / "outside.safetensors")
    return folder


def test_embeddings_take_the_place_of_tokens(embeddings: Path) -> None:
    tokenizer = clip_prompt_tokenizer(embedding_directories=[str(embeddings)])
    [chunk] = tokenizer.tokenize_with_weights("wall (embedding:moss, embedding:old:1.2) end")
    vectors = [(float(token[0]), weight) for token, weight in chunk if isinstance(token, torch.Tensor)]
    assert vectors == [(3.0, 1.2), (3.0, 1.2), (4.0, 1.2)]


@pytest.mark.parametrize("name", ["missing", "../outside", "/etc/hostname", ""])
def test_embeddings_outside_are_left_out(embeddings: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = clip_prompt_tokenizer(embedding_directories=[str(embeddings)])
    with caplog.at_level(logging.WARNING):
        chunks = tokenizer.tokenize_with_weights(f"wall embedding:{name} end")
    assert all(isinstance(token, int) for chunk in chunks for token, _ in chunk)
    assert "left out" in caplog.text


def test_embeddings_of_other_widths_are_left_out(embeddings: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = sd1_clip(TextWeights(text_weights(text_config())), [str(embeddings)])
    with caplog.at_level(logging.WARNING):
        encoded = clip.encode("wall embedding:narrow end")
    assert "width 32, expected 64" in caplog.text
    torch.testing.assert_close(encoded[:, :4], clip.encode("wall end")[:, :4])


def test_embeddings_with_code_are_refused(embeddings: Path) -> None:
    torch.save({"string_to_param": embeddings}, embeddings / "bad.pt")
    with pytest.raises(ValueError, match=naming("bad.pt", "tensors")):
        clip_prompt_tokenizer(embedding_directories=[str(embeddings)]).tokenize_with_weights("embedding:bad")


def test_quantized_text_encoders_are_refused() -> None:
    weights = t5_weights() | {"encoder.block.0.layer.0.SelfAttention.q.absmax": torch.ones(1)}
    with pytest.raises(ValueError, match=naming("quantized", "encoder.block.0.layer.0.SelfAttention.q.absmax")):
        read_text_weights(weights)


def test_embeddings_change_the_result(embeddings: Path) -> None:
    clip = sd1_clip(TextWeights(text_weights(text_config())), [str(embeddings)])
    assert not torch.allclose(clip.encode("wall embedding:moss"), clip.encode("wall"))
