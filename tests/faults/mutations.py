"""Broken variants of whole documents and files, made from a number alone."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

WEIRD: list[Any] = [None, True, False, 0, -1, 1, 2, 5, 1e308, -1e308, 2**63, 2**64, -(2**70), 0.5, "", "0", "1", "-1"]
WEIRD += [
    "\0",
    "../..",
    "/",
    "C:\\x",
    "a\\b",
    "%date:yyyy%",
    "%KSampler.seed%",
    "{a|b",
    "[1]",
    "\u202e\x1b[31m",
    "a" * 300,
]
WEIRD += [
    "\ud800",
    [],
    {},
    [[]],
    ["1"],
    ["1", 0],
    ["1", -1],
    ["1", 99],
    ["no", 0],
    [1, 0],
    {"__value__": [1]},
    {"a": {}},
]
MOST_CHANGES = 4


def deep(depth: int) -> Any:
    """Lists in lists."""
    made: Any = []
    for _ in range(depth):
        made = [made]
    return made


def mutated(document: Any, chance: random.Random, values: Sequence[Any] = ()) -> Any:
    """Return a JSON document with some of its parts changed, moved, doubled or left out."""
    document = copy.deepcopy(document)
    for _ in range(chance.randint(1, MOST_CHANGES)):
        places = list(_places(document))
        if not places:
            return chance.choice(WEIRD)
        parent, key = chance.choice(places)
        chance.choice(CHANGES)(parent, key, chance, [*WEIRD, *values, deep(chance.choice([1, 50, 400]))], places)
    return document


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every container and key of a document."""
    found: list[tuple[Any, Any]] = []
    pending = [document]
    while pending:
        each = pending.pop()
        keys = each.keys() if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        for key in keys:
            found.append((each, key))
            pending.append(each[key])
    return found


def _replace(parent: Any, key: Any, chance: random.Random, values: Sequence[Any], _: Any) -> None:
    parent[key] = copy.deepcopy(chance.choice(values))


def _remove(parent: Any, key: Any, *_: Any) -> None:
    del parent[key]


def _rename(parent: Any, key: Any, chance: random.Random, values: Sequence[Any], places: Any) -> None:
    if isinstance(parent, dict):
        other = chance.choice(places)[1]
        parent[str(other)] = parent.pop(key)
    else:
        parent.insert(key, parent[key])


def _move(parent: Any, key: Any, chance: random.Random, values: Sequence[Any], places: Any) -> None:
    other, place = chance.choice(places)
    moved = copy.deepcopy(other[place]) if place in other or isinstance(other, list) and place < len(other) else None
    parent[key] = moved


def _nudge(parent: Any, key: Any, chance: random.Random, values: Sequence[Any], _: Any) -> None:
    value = parent[key]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        parent[key] = chance.choice(values)
    elif isinstance(value, str):
        cut = chance.randrange(len(value) + 1)
        parent[key] = value[:cut] + chance.choice(["", "x", "\0", "%", "/", "\n"]) + value[cut + 1 :]
    else:
        parent[key] = value + chance.choice([-1, 1, 0.5, 1000, -1000])


CHANGES: list[Callable[..., None]] = [_replace, _replace, _remove, _rename, _move, _nudge, _nudge]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return bytes with some of them changed, cut out, doubled or left out at the end."""
    broken = bytearray(content)
    for _ in range(chance.randint(1, MOST_CHANGES)):
        at = chance.randrange(len(broken) + 1)
        count = chance.choice([1, 1, 2, 4, 8, 100])
        way = chance.randrange(6)
        if way == 0:
            broken[at : at + count] = chance.randbytes(count)
        elif way == 1:
            broken[at : at + count] = chance.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * count
        elif way == 2:
            del broken[at : at + count]
        elif way == 3:
            broken[at:at] = broken[at : at + count]
        elif way == 4 and len(broken) > 1:
            broken[at - 1] ^= 1 << chance.randrange(8)
        else:
            del broken[at:]
    return bytes(broken)


def damaged_safetensors(content: bytes, chance: random.Random) -> bytes:
    """Return a safetensors file whose header or bytes are damaged."""
    length = int.from_bytes(content[:8], "little")
    if chance.random() < 0.4:
        return damaged(content, chance)
    header = mutated(json.loads(content[8 : 8 + length]), chance, ["F32", "F16", "I64", "BOOL", "F4", [0, 8], [8, 0]])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
