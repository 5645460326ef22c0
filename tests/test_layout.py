"""The example workflows as they are drawn: nothing overlaps, steps run from left to right, notes can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tessera.tools.layout import (
    EXAMPLES,
    PADDING,
    TITLE,
    Box,
    boxes,
    dump,
    layout,
    note_height,
    outside,
    overlaps,
    sizes_of,
    steps_of,
)

PATHS = sorted(EXAMPLES.glob("*.json"))
LEAST_WIDTH = 240
OF_NODE, OF_GROUP, AROUND = 7.0, 9.0, 40
"""Of a title in px: the mean width of its characters in a node and in a group, and what is around it."""

examples = pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in PATHS])


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


@examples
def test_an_example_is_laid_out_as_its_steps_say(path: Path) -> None:
    assert path.read_text("utf-8") == dump(layout(read(path), path.stem)), "run: python -m tessera.tools.layout"


@examples
def test_every_node_was_measured_and_has_a_step(path: Path) -> None:
    nodes = {node["id"] for node in read(path)["nodes"]}
    assert {node for _, columns in steps_of(path.stem) for column in columns for node in column} == nodes
    assert sizes_of(path.stem).keys() == nodes, "run: python -m tessera.tools.layout URL"


@examples
def test_nothing_overlaps_as_drawn(path: Path) -> None:
    """Title bars, badges, reports and images of a run are counted, in the renderer that takes more room."""
    assert not overlaps(read(path), sizes_of(path.stem))


@examples
def test_a_file_stores_no_less_than_is_drawn(path: Path) -> None:
    drawn = sizes_of(path.stem)
    for node in read(path)["nodes"]:
        assert node["size"][1] >= drawn[node["id"]]["before"], (node["id"], node["type"])
        assert node["size"][0] >= LEAST_WIDTH


@examples
def test_every_node_lies_in_its_group(path: Path) -> None:
    drawing = read(path)
    groups = [Box(*group["bounding"]) for group in drawing["groups"]]
    for number, box in boxes(drawing, sizes_of(path.stem)):
        homes = [home for home in groups if home.meets(box)]
        assert len(homes) == 1, number
        (home,) = homes
        assert home.x + PADDING <= box.x
        assert box.x + box.width <= home.x + home.width - PADDING
        assert home.y + TITLE <= box.y
        assert box.y + box.height <= home.y + home.height


@examples
def test_titles_fit(path: Path) -> None:
    """The editor makes a node wider for a title, and draws that of a group beyond its frame."""
    drawing = read(path)
    for node in drawing["nodes"]:
        assert AROUND + OF_NODE * len(node.get("title", "")) <= node["size"][0]
    for group in drawing["groups"]:
        assert OF_GROUP * len(group["title"]) <= group["bounding"][2]


@examples
def test_steps_and_links_run_from_left_to_right(path: Path) -> None:
    drawing = read(path)
    groups = drawing["groups"]
    assert [group["title"].split(".")[0] for group in groups] == [str(n + 1) for n in range(len(groups))]
    assert all(one["bounding"][0] < other["bounding"][0] for one, other in zip(groups, groups[1:], strict=False))
    places = {node["id"]: node["pos"][0] for node in drawing["nodes"]}
    backwards = [link for link in drawing["links"] if places[link[1]] > places[link[3]]]
    assert not backwards


@examples
def test_an_example_has_a_note_that_can_be_read(path: Path) -> None:
    notes = [node for node in read(path)["nodes"] if node["type"] == "Note"]
    assert notes
    for note in notes:
        assert note["size"][1] >= note_height(note["widgets_values"][0], note["size"][0])


@examples
def test_thumbnails_have_one_shape(path: Path) -> None:
    with Image.open(path.with_suffix(".jpg")) as image:
        assert image.size == (512, 512)


def test_rectangles_that_share_an_edge_do_not_meet() -> None:
    assert not Box(0, 0, 10, 10).meets(Box(10, 0, 5, 5))
    assert Box(0, 0, 10, 10).meets(Box(9, 9, 5, 5))


def test_a_title_bar_counts() -> None:
    node = {"type": "VAEDecode", "size": [100, 50]}
    above, below = node | {"id": 1, "pos": [0, 0]}, node | {"id": 2, "pos": [0, 50 + TITLE - 1]}
    assert overlaps({"nodes": [above, below]}, {}) == [(1, 2)]
    assert overlaps({"nodes": [above, node | {"id": 2, "pos": [0, 50 + TITLE]}]}, {}) == []
    assert overlaps({"nodes": [above, node | {"id": 2, "pos": [0, 200]}]}, {1: {"before": 50, "after": 180}}) == [
        (1, 2)
    ]


def test_a_node_that_leaves_its_group_is_found() -> None:
    node = {"id": 1, "type": "VAEDecode", "pos": [20, 60], "size": [100, 50]}
    groups = [{"bounding": [0, 0, 140, 120]}]
    assert outside({"nodes": [node], "groups": groups}, {}) == []
    assert outside({"nodes": [node], "groups": groups}, {1: {"before": 50, "after": 70}}) == [1]
    assert outside({"nodes": [node | {"pos": [50, 60]}], "groups": groups}, {}) == [1]
    assert outside({"nodes": [node | {"pos": [20, TITLE - 1]}], "groups": groups}, {}) == [1]
