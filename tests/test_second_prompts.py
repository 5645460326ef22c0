"""SDXL's two prompts, one for each of its text encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tessera.host.core_nodes.text import CLIPTextEncode, CLIPTextEncodeSDXL
from tessera.host.loaders import load_checkpoint
from tiny_models import WIDTH

SIZES = {"width": 640, "height": 512, "crop_w": 8, "crop_h": 16, "target_width": 704, "target_height": 576}
LONG = "moss " * 100


@pytest.fixture(scope="module")
def clip(checkpoints: dict[str, tuple[Path, Path]]) -> Any:
    return load_checkpoint(checkpoints["sdxl"][0])[1]


def encoded(clip: Any, text_g: str, text_l: str) -> tuple[torch.Tensor, dict[str, Any]]:
    [[[embedding, values]]] = CLIPTextEncodeSDXL.execute(clip, text_g, text_l, **SIZES).args
    return embedding, values


def test_each_encoder_reads_its_own_prompt(clip: Any) -> None:
    embedding, values = encoded(clip, "moss", "white zigzag")
    ((both, _),), ((moss, pooled),) = (CLIPTextEncode.execute(text, clip).args[0] for text in ("white zigzag", "moss"))
    assert torch.equal(embedding[..., :WIDTH], both[..., :WIDTH])
    assert torch.equal(embedding[..., WIDTH:], moss[..., WIDTH:])
    assert not torch.equal(moss, both)
    assert torch.equal(values["pooled_output"], pooled["pooled_output"])
    assert values.items() >= SIZES.items()


@pytest.mark.parametrize(("text_g", "text_l"), [(LONG, "moss"), ("moss", LONG), ("", "")])
def test_prompts_of_different_length_meet(clip: Any, text_g: str, text_l: str) -> None:
    embedding, _ = encoded(clip, text_g, text_l)
    longer = CLIPTextEncode.execute(max(text_g, text_l, key=len), clip).args[0][0][0]
    assert embedding.shape == longer.shape
    own = longer[..., :WIDTH] if len(text_l) > len(text_g) else longer[..., WIDTH:]
    assert torch.equal(embedding[..., :WIDTH] if len(text_l) > len(text_g) else embedding[..., WIDTH:], own)


def test_other_text_encoders_are_refused(checkpoints: dict[str, tuple[Path, Path]]) -> None:
    with pytest.raises(ValueError, match="not SDXL's"):
        encoded(load_checkpoint(checkpoints["sd15"][0])[1], "a", "b")
    with pytest.raises(ValueError, match="no text encoder"):
        encoded(None, "a", "b")
