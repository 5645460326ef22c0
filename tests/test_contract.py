"""The node contract: a saved workflow opens and means the same in every later version."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from node_contract import breaks, golden, present

HOW = "a saved workflow would break; add behind what is there, or give a renamed node a replacement entry"


@pytest.mark.parametrize("node_id", golden())
def test_promise_is_kept(node_id: str) -> None:
    assert node_id in present(), HOW
    assert not breaks(golden()[node_id], present()[node_id]), HOW


def test_golden_file_is_up_to_date() -> None:
    assert golden() == present(), "run python tests/node_contract.py and commit the difference"


def changed(**change: Any) -> dict[str, Any]:
    node = copy.deepcopy(golden()["TesseraSeamlessModel"])
    node["inputs"][1] |= change
    return node


@pytest.mark.parametrize(
    "new",
    [
        changed(name="direction"),
        changed(type="STRING"),
        changed(default="off"),
        changed(options=["both", "off"]),
        changed(required=False),
        {"inputs": golden()["TesseraSeamlessModel"]["inputs"][::-1], "outputs": []},
    ],
)
def test_breaking_changes_are_found(new: dict[str, Any]) -> None:
    assert breaks(golden()["TesseraSeamlessModel"], new)


def test_additions_are_allowed() -> None:
    options = golden()["TesseraSeamlessModel"]["inputs"][1]["options"]
    new = changed(options=[*options, "diagonal"])
    new["inputs"].append({"name": "strength", "type": "FLOAT", "required": False})
    assert not breaks(golden()["TesseraSeamlessModel"], new)
