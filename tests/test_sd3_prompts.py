"""Prompts of Stable Diffusion 3, whose checkpoints hold three text encoders, two, or one."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from tessera.host.models.families.base import TextSource
from tessera.host.models.families.sd3 import FAMILY, WIDTHS
from tessera.host.nodes.text import encode_for_sd3
from tessera.host.text.clip import CLIP
from tessera.host.text.loading import TextWeights
from tiny_models import SDXL_SECOND, save_t5_tokenizer, t5_weights, text_config, text_weights

ROLES = ("clip_l", "clip_g", "t5xxl")
PARTS: list[tuple[str, ...]] = [part for count in (1, 2, 3) for part in combinations(ROLES, count)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], CLIP]:
    """The text encoders of checkpoints that hold some of the three."""
    folder = tmp_path_factory.mktemp("t5")
    save_t5_tokenizer(folder)

    def weights(role: str) -> TextWeights:
        if role == "t5xxl":
            return TextWeights(t5_weights(32128))
        return TextWeights(text_weights(text_config() if role == "clip_l" else SDXL_SECOND))

    return {part: FAMILY.text.make({role: weights(role) for role in part}, TextSource([], folder)) for part in PARTS}


@pytest.mark.parametrize("padding", ["none", "empty_prompt"])
@pytest.mark.parametrize("part", PARTS, ids="+".join)
def test_every_checkpoint_takes_every_prompt(
    clips: dict[tuple[str, ...], CLIP], part: tuple[str, ...], padding: str
) -> None:
    """As in ComfyUI: a chunk of CLIP unless both have nothing; T5 gives its end alone; zeros without any prompt."""
    for told in product(("", "old moss"), repeat=3):
        prompts: dict[str, str] = dict(zip(ROLES, told, strict=True))
        [[embedding, values]] = encode_for_sd3(clips[part], *told, padding)
        speaks = {role for role in part if prompts[role] or padding == "empty_prompt"}
        of_clip = 77 if {"clip_l", "clip_g"} & speaks else 0
        of_t5 = 0 if "t5xxl" not in part else 77 if "t5xxl" in speaks else 1
        assert embedding.shape[1] == (of_clip + of_t5 or 77), prompts
        assert embedding.any() == bool(of_clip + of_t5)
        assert values["pooled_output"].any() == bool(of_clip)
        mute = {role: text if role in part else "" for role, text in prompts.items()}
        [[same, _]] = encode_for_sd3(clips[part], *mute.values(), padding)
        assert torch.equal(embedding, same), "the prompt of an encoder that is missing says something"


def test_what_is_missing_is_as_wide_as_the_real_one(clips: dict[tuple[str, ...], CLIP]) -> None:
    [[embedding, values]] = encode_for_sd3(clips["clip_l",], "", "", "", "none")
    assert embedding.shape == (1, 77, WIDTHS["t5xxl"])
    assert values["pooled_output"].shape == (1, WIDTHS["clip_l"] + WIDTHS["clip_g"])
