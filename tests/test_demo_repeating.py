"""Textures that repeat, drawn for `texture-flux` to learn from: what came out otherwise is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tessera.demo.training import repeating
from tessera.demo.training.textures import PATTERNS
from torch import Tensor, nn

DOTS = list(PATTERNS).index("dots")


class SeesDots(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.full((len(images),), DOTS), len(PATTERNS)).float()


def test_images_that_show_something_else_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(repeating, "train_classifier", lambda path: (SeesDots(), 1.0))
    asked = [("grid", "black", "white"), ("dots", "red", "white")]
    images, shown = repeating.draw_repeating(asked, 64, tmp_path)
    assert shown == asked[1:]
    assert images.shape == (1, 3, 64, 64)
    assert -1 <= images.min() < images.max() <= 1
    edge = (images - images.roll(1, -1)).abs().mean((0, 1, 2))
    assert edge[0] <= edge.max() * 0.9
