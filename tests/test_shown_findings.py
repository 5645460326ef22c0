"""What nodes show of their findings goes into ComfyUI's history, which is JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from tessera.nodes import NODES
from tessera.nodes.maps import TesseraNormalToHeight
from tessera.nodes.seam_check import TesseraSeamCheck
from tessera.nodes.settings import TesseraSettings
from tessera.nodes.shown import shown


@pytest.mark.parametrize("number", [0.5, 3.0, math.inf, -math.inf, math.nan])
def test_findings_are_json(number: float) -> None:
    json.dumps(shown("a report", ratio=number), allow_nan=False)
    assert shown("a report", ratio=number)["ratio"] == ((number,) if math.isfinite(number) else (None,))


def look(output: Any) -> dict[str, Any]:
    """What a node shows, after JSON."""
    return json.loads(json.dumps(output.ui, allow_nan=False))


def test_the_seam_check_shows_its_numbers() -> None:
    ends = {node.define_schema().node_id for node in NODES if node.define_schema().is_output_node}
    assert {"TesseraSeamCheck", "TesseraSchedulerCompare"} <= ends
    image = torch.linspace(0, 1, 24)[None, :, None, None].expand(1, 24, 16, 3)
    output = TesseraSeamCheck.execute(image, 2, 2)
    found = look(output)
    assert found["text"] == [output.args[3]]
    assert found["seam_ratio"] == [output.args[2]]
    assert len(found["images"]) == 1


def test_reports_and_numbers_are_shown() -> None:
    settings = TesseraSettings.execute("SDXL", "OctoAI", 512, 512, "", 30, -1.0, 1, True)
    assert look(settings)["text"] == [settings.args[-1]]
    height = TesseraNormalToHeight.execute(torch.full((1, 8, 8, 3), 0.5), "OpenGL")
    assert look(height)["strength"] == [height.args[1]]
