"""ComfyUI's official workflow templates, with their models taken to be there."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from tessera.app.named_models import of_no_family
from tessera.tools import template_table

MISSING = "needs nodes"
FEWEST_KNOWN, FEWEST_PASSING = 79, 51


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(template_table.PATH.read_text("utf-8"))


def test_enough_templates_are_taken(golden: dict[str, Any]) -> None:
    kinds = Counter(verdict.split(":")[0] for verdict in golden["templates"].values())
    assert kinds.total() - kinds[MISSING] >= FEWEST_KNOWN
    assert kinds[template_table.PASSES] >= FEWEST_PASSING


def test_table_of_templates_is_up_to_date(golden: dict[str, Any]) -> None:
    pytest.importorskip("comfyui_workflow_templates_json", reason="needs the package with the templates")
    found = template_table.table()
    if found["version"] != golden["version"]:
        pytest.skip(f"the table is of templates {golden['version']}, installed are {found['version']}")
    assert found == golden, "run: python -m tessera.tools.template_table"


def test_models_that_need_comfyui_are_told_by_their_names() -> None:
    known = {"1": node("UNETLoader", unet_name="flux1-dev.safetensors"), "2": node("ControlNetLoader")}
    assert of_no_family(known) == []
    (line,) = of_no_family({"1": node("UNETLoader", unet_name="hidream_i1_dev_fp8.safetensors")})
    assert "node 1 UNETLoader, input unet_name" in line and "hidream_i1_dev_fp8" in line and "--engine" in line
    controlled = {"1": node("CheckpointLoaderSimple", ckpt_name="sd3.5_large.safetensors")}
    (line,) = of_no_family(controlled | {"2": node("ControlNetLoader", control_net_name="blur.safetensors")})
    assert "node 2 ControlNetLoader" in line and "Stable Diffusion 3" in line
    (line,) = of_no_family({"1": node("UNETLoader", unet_name="z_image_nvfp4.safetensors")})
    assert "z_image_nvfp4" in line
