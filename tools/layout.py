"""Lay out the example workflows: steps from left to right, a group each, without overlap as the editor draws them.

`tools/example_steps.json` says what the steps are: title, and the ids of nodes in columns. `tools/drawn_sizes.json`
says how large the editor draws each node in both renderers, before a run and after it, with images and previews in it.
`python -m tessera.tools.layout` writes the positions and sizes; after a change of a node or an example,
`python -m tessera.tools.layout URL` measures first, with Chromium and Playwright, in the editor of a running server.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "example_workflows"
STEPS = Path(__file__).with_name("example_steps.json")
SIZES = Path(__file__).with_name("drawn_sizes.json")

TITLE = 30
"""Height of a title bar, which lies above a node's position."""
BADGE = 24
"""Height of the badge that the classic canvas draws above the title of a pack's node."""
FOOT = 20
"""Space below a node."""
GAP, PADDING, GROUP_TITLE, BETWEEN = 40, 20, 46, 40
WIDTH, WIDE = 280, 320
WIDE_NODES = {"TesseraScheduler", "TesseraSchedulerCompare", "TesseraSeamCheck", "TesseraCompareImages", "Note"}
LINE, CHARACTER, FRAME = 17, 7.0, 44
"""Of a note's text in px: a line, the mean width of a character, and what is around it."""
TEXT_HEIGHT, IMAGE_HEIGHT = 140, 340
LIVE = {
    "KSampler",
    "KSamplerAdvanced",
    "SamplerCustom",
    "SamplerCustomAdvanced",
    "TesseraSampleSteps",
    "TesseraSchedulerCompare",
    "TesseraSchedulerKSampler",
    "TesseraSecondPass",
    "TesseraStylePreset",
}
"""Nodes that grow by an image: while they sample, if the server sends previews, or after it."""
PREVIEW = 250
"""Height of such an image: room is kept below them, measured or not."""


class Box(NamedTuple):
    """A rectangle: corner, width and height in px of the canvas."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: Box) -> bool:
        """Whether two rectangles share more than an edge."""
        across = self.x < other.x + other.width and other.x < self.x + self.width
        return across and self.y < other.y + other.height and other.y < self.y + self.height

    def holds(self, other: Box) -> bool:
        """Whether another rectangle lies inside this one."""
        across = self.x <= other.x and other.x + other.width <= self.x + self.width
        return across and self.y <= other.y and other.y + other.height <= self.y + self.height


def steps_of(name: str) -> list[tuple[str, list[list[int]]]]:
    """Return the steps of an example: titles, with columns of node ids."""
    return [(title, columns) for title, columns in json.loads(STEPS.read_text("utf-8"))[name]]


def sizes_of(name: str) -> dict[int, dict[str, int]]:
    """Return how high each node of an example is drawn: at most `before` a run, and at most `after` it."""
    drawn = json.loads(SIZES.read_text("utf-8")).get(name, {}) if SIZES.exists() else {}
    return {int(number): heights for number, heights in drawn.items()}


def note_height(text: str, width: float) -> float:
    """Return the height of a Note in which all of a text can be read."""
    fitting = int((width - 40) / CHARACTER)
    lines = sum(max(1, math.ceil(len(paragraph) / fitting)) for paragraph in text.split("\n"))
    return FRAME + LINE * (lines + 1)


def wanted_height(node: Mapping[str, Any], width: float, drawn: Mapping[str, int]) -> float:
    """Return the height that a node gets in the file."""
    kind, least = node["type"], drawn.get("before", 60)
    if kind == "Note":
        return max(least, note_height(node["widgets_values"][0], width))
    if kind == "CLIPTextEncode":
        return max(least, TEXT_HEIGHT)
    if kind in LIVE:
        return least
    shows = kind in ("PreviewImage", "SaveImage", "TesseraSaveImage", "TesseraCompareImages", "TesseraSeamCheck")
    return max(least, drawn.get("after", 0), IMAGE_HEIGHT if shows else 0)


def grown_height(node: Mapping[str, Any], height: float, drawn: Mapping[str, int]) -> float:
    """Return how high a node of `height` becomes in a run."""
    live = drawn.get("before", 0) + PREVIEW if node["type"] in LIVE else 0
    return max([height, live, *drawn.values()])


def layout(drawing: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a drawing with positions, sizes and groups by its steps; nothing else changes."""
    nodes, drawn = {node["id"]: node for node in drawing["nodes"]}, sizes_of(name)
    groups, left = [], 0.0
    for number, (title, columns) in enumerate(steps_of(name), 1):
        x, bottom = left + PADDING, 0.0
        for column in columns:
            width = WIDE if any(nodes[each]["type"] in WIDE_NODES for each in column) else WIDTH
            y = float(GROUP_TITLE + BADGE + TITLE)
            for each in column:
                height = wanted_height(nodes[each], width, drawn.get(each, {}))
                nodes[each] |= {"pos": [round(x), round(y)], "size": [width, round(height)]}
                y += grown_height(nodes[each], height, drawn.get(each, {})) + FOOT + BADGE + TITLE
            x, bottom = x + width + GAP, max(bottom, y - BADGE - TITLE)
        right = x - GAP + PADDING
        groups.append({"id": number, "title": title, "bounding": [round(left), 0, round(right - left), round(bottom)]})
        left = right + BETWEEN
    for group in groups:
        group["bounding"][3] = max(each["bounding"][3] for each in groups)
        group |= {"color": "#3f789e", "font_size": 24, "flags": {}}
    view = {"scale": 0.6, "offset": [120, 160]}
    return drawing | {"groups": groups, "extra": drawing.get("extra", {}) | {"ds": view}}


def boxes(drawing: Mapping[str, Any], drawn: Mapping[int, Mapping[str, int]]) -> Iterator[tuple[int, Box]]:
    """Yield the rectangle of each node with its title bar, its badge, and what it grows to."""
    for node in drawing["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        height = grown_height(node, height, drawn.get(node["id"], {}))
        badge = BADGE if node["type"].startswith("Tessera") else 0
        yield node["id"], Box(x, y - TITLE - badge, width, height + TITLE + badge)


def overlaps(drawing: Mapping[str, Any], drawn: Mapping[int, Mapping[str, int]]) -> list[tuple[int, int]]:
    """Return the pairs of nodes that lie on top of each other."""
    found = list(boxes(drawing, drawn))
    return [(a, b) for i, (a, one) in enumerate(found) for b, other in found[i + 1 :] if one.meets(other)]


def outside(drawing: Mapping[str, Any], drawn: Mapping[int, Mapping[str, int]]) -> list[int]:
    """Return the nodes that no group's frame holds whole."""
    groups = [Box(*group["bounding"]) for group in drawing["groups"]]
    return [number for number, box in boxes(drawing, drawn) if not any(group.holds(box) for group in groups)]


def dump(drawing: Mapping[str, Any]) -> str:
    """Return a drawing as JSON with a line for each node, link and group, or for each entry of another object."""

    def value(item: Any) -> str:
        if not isinstance(item, list) or not item:
            return json.dumps(item)
        return "[\n" + ",\n".join(f"    {json.dumps(each)}" for each in item) + "\n  ]"

    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {value(item)}" for key, item in drawing.items()) + "\n}\n"


def write() -> None:
    """Lay out every example."""
    for path in sorted(EXAMPLES.glob("*.json")):
        path.write_text(dump(layout(json.loads(path.read_text("utf-8")), path.stem)), encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Measure in the editor of a server where its address is given, then lay out."""
    if arguments:
        from .measure import measure

        write()
        found = dict(measure(arguments[0], sorted(EXAMPLES.glob("*.json"))))
        SIZES.write_text(dump(found), encoding="utf-8")
    write()


if __name__ == "__main__":
    main(sys.argv[1:])
