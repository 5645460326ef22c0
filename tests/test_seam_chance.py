"""What the table of seams counts: lines from inside taken for borders, and pairs of images from one seed."""

from __future__ import annotations

import pytest
import torch
from tessera.demo.training.seam_chance import TITLES, _first, chance, shares
from tessera.demo.training.seam_table import PROMPTS, asked, paired
from tessera.demo.training.textures import PATTERNS
from tessera.tiling.seam import measure, seam_of_steps


def test_a_line_taken_for_the_border_is_the_border_of_the_rolled_image() -> None:
    image = torch.rand(1, 40, 64, 3, generator=torch.Generator().manual_seed(0))
    steps = image[0] - image[0].roll(1, 0)
    for place in (0, 1, 17, 39):
        rolled = measure(image.roll(-place, 1))[0].vertical
        found = seam_of_steps(_first(steps, place))
        assert vars(found) == pytest.approx(vars(rolled))


def test_hardly_any_texture_without_a_seam_shows_one() -> None:
    for pattern in ("stripes", "clouds"):
        found = shares(chance(pattern, 64, images=12, lines=4))
        assert found.unseen >= 0.95, pattern
        assert found.cr <= found.unseen
    assert len(TITLES) == len(found)


def test_prompts_name_the_patterns_in_turn() -> None:
    assert {prompt.pattern for prompt in asked(list(PATTERNS))} == set(PATTERNS)
    few = asked(["stripes", "zigzag"])
    assert [prompt.pattern for prompt in few] == ["stripes", "zigzag"] * (PROMPTS // 2)
    assert [prompt.colours for prompt in few] == [prompt.colours for prompt in asked(list(PATTERNS))]


def test_pairs_are_counted() -> None:
    on = [True] * 8 + [False] * 6 + [True, False]
    off = [True] * 8 + [True] * 6 + [False, False]
    assert paired("pattern", on, off) == (
        "pattern: right with the nodes 9 of 16, without 14 of 16 (-31.2%); only with 1, only without 6, p = 0.12"
    )
    assert "p = 1.00" in paired("pattern", on, on)
