"""Random request bodies, from what the fields of a service's request say."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from tessera.app.services.bodies.parameters import Parameter
from tessera.app.services.services import SERVICES

FAR_MORE = 10**6
"""Bound of numbers whose document has none."""


def image(colour: str, size: tuple[int, int] = (16, 16)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


IMAGES = [image("teal"), image("white", (32, 16)), image("black", (8, 24))]


STYLE_IDS = ["be8c6b58-739c-4d44-b9c1-b032ed308b61", "556c1ee5-ec38-42e8-955a-1e82dad0ffa1", "gone"]
GUIDANCES = [
    {"image": {"id": IMAGES[0], "type": "UPLOADED"}, "strength": "LOW"},
    {"image": {"id": IMAGES[1], "type": "GENERATED"}, "strength": "HIGH"},
    {"image": {"id": IMAGES[2]}, "strength": "MID", "order": 2},
]
NESTED = {
    "concepts": [
        {"modelId": "zigzag", "scale": 0.5},
        {"modelId": "zigzag", "scale": 1, "typo": 1},
        {"modelId": "gone"},
    ],
    "elements": [{"akUUID": "zigzag", "weight": 0.5}, {"akUUID": "zigzag", "weight": 1, "name": "zigzag"}],
    "controlnets": [
        {"initImageId": IMAGES[0], "preprocessorId": 19, "weight": 0.5},
        {"initImageId": IMAGES[1], "preprocessorId": 67, "strengthType": "Max", "initImageType": "UPLOADED"},
        {"initImageId": IMAGES[1], "preprocessorId": 100, "strengthType": "Low", "weight": 1, "influence": 0.5},
        {"initImageId": IMAGES[1], "preprocessorId": 133, "strengthType": "Most", "influence": 1},
        {"initImageId": IMAGES[1], "preprocessorId": 5},
    ],
}
"""Objects in lists: some do nothing as a whole, some have names and values that do nothing."""
NAMED = ("style", "content", "character", "image_reference", "image_to_image")


@dataclass(frozen=True)
class Values:
    """What values are drawn from.

    Attributes:
        texts: by the names of parameters; images where there are none.
        objects: likewise, of lists of objects.
        loras: names of files.
        sizes: sides in px.
        most: a greatest number for a parameter that is less than its document's.
    """

    texts: Mapping[str, Sequence[str]]
    objects: Mapping[str, Sequence[Any]]
    loras: Sequence[str]
    sizes: Sequence[int] = (512, 768, 1024)
    most: Mapping[str, float] = field(default_factory=dict)

    def body(self, draw: random.Random, name: str) -> dict[str, Any]:
        """A body for a service, which it allows or nearly so; a few numbers are texts."""
        share = draw.choice([0.1, 0.3, 0.6])
        rows = [row for row in SERVICES[name].table().values() if row.required or draw.random() < share]
        return {row.name: _perhaps_text(draw, self.value(draw, row)) for row in rows}

    def value(self, draw: random.Random, row: Parameter) -> Any:
        """A value of a parameter."""
        if row.choices:
            return draw.choice([each for each in row.choices if each in self.texts.get(row.name, row.choices)])
        if row.type is bool:
            return draw.random() < 0.7
        if "width" in row.name or "height" in row.name:
            return draw.choice(self.sizes)
        if row.type == int | list[int] and draw.random() < 0.3:
            return draw.sample(range(1, FAR_MORE), min(3, int(self.most.get("count", 3))))
        if row.type in (int, float, int | list[int], list[float]):
            return self._number(draw, row)
        if row.type == list[dict[str, Any]]:
            offered = list(self.objects.get(row.name, [{}]))
            return draw.sample(offered, min(len(offered), draw.choice([1, 1, 2])))
        others: list[tuple[Any, Any]] = [
            (list[str], draw.choices(self.texts.get(row.name, IMAGES), k=draw.randint(1, 2))),
            (dict[str, float], dict.fromkeys(draw.sample(list(self.loras), draw.choice([1, 2])), 0.5)),
            (dict[str, str], draw.choice([{"zig": "zigzag"}, {"zig": "moss", "gone": "zigzag"}])),
            (dict[str, list[str]], draw.choice([{"moss": [IMAGES[0]]}, {"moss": IMAGES, "cloud": [IMAGES[1]]}])),
        ]
        found = [each for kind, each in others if kind == row.type]
        return found[0] if found else draw.choice(self.texts.get(row.name, IMAGES))

    def _number(self, draw: random.Random, row: Parameter) -> Any:
        low, high = row.within
        high = min(FAR_MORE if high is None else high, self.most.get(row.name, FAR_MORE))
        if row.type in (int, int | list[int]):
            return draw.randint(int(low or 0), int(high))
        ends = (low or 0.0, 4.0 if high == FAR_MORE else high)
        number = round(draw.uniform(*ends), draw.choice([0, 2])) or ends[1]
        return number if row.type is float or row.name == "lora_strength" else [number]


def _perhaps_text(draw: random.Random, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number and draw.random() < 0.1 else value
