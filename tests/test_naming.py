"""The pattern that messages are matched with fails for other messages."""

from __future__ import annotations

import re

import pytest
from naming import naming


@pytest.mark.parametrize(
    ("message", "matches"),
    [
        ("the width is 160 px; set it to 128 px", True),
        ("128 is wanted where width was 160.", True),
        ("the width is 1600 px; set it to 128 px", False),
        ("the width is 160.5 px; set it to 128 px", False),
        ("the widths are 160 and 128 px", False),
        ("the width is 160 px\nset it to 128 px", False),
        ("the width is 160 px; set it to 128 px\nor not", False),
    ],
)
def test_a_message_names_every_part_in_one_line(message: str, matches: bool) -> None:
    assert bool(re.search(naming("width", 160, 128), message)) is matches


def test_files_and_quotes_are_parts_too() -> None:
    assert re.search(naming("a.png", "(1, 2)", "'x'"), "a.png: found (1, 2), expected 'x'")
    assert not re.search(naming("a.png"), "banana.png is damaged")
    assert not re.search(naming("a.png"), "a_png is damaged")
