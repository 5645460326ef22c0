"""What core nodes offer as ComfyUI does and cannot do here is refused before anything runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from graph_nodes import node
from naming import naming
from tessera.app.registry import node_classes
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.graph.validation import validate
from tessera.host.schema.object_info import ObjectInfo

PNG = {"format": "png", "format.bit_depth": "8-bit", "format.input_color_space": "sRGB"}
EXR = {"format": "exr", "format.bit_depth": "32-bit float", "format.input_color_space": "HDR"}
FLAGS = dict.fromkeys(("case_insensitive", "multiline", "dotall"), False)
IMAGE = node("EmptyImage", width=8, height=8, batch_size=1, color=0)
LATENT = node("EmptyLatentImage", width=64, height=64, batch_size=1)
LOADER = node("UNETLoader", unet_name="any.safetensors", weight_dtype="default")

REFUSED = [
    (node("UNETLoader", unet_name="any.safetensors", weight_dtype="fp8_e4m3fn"), ["weight_dtype", "fp8_e4m3fn"]),
    (node("DualCLIPLoader", clip_name1="a", clip_name2="b", type="hunyuan_video"), ["type", "hunyuan_video", "flux"]),
    (node("CLIPLoader", clip_name="a", type="wan"), ["type", "wan", "qwen_image"]),
    (node("ModelSamplingDiscrete", model=["0", 0], sampling="img_to_img", zsnr=False), ["sampling", "img_to_img"]),
    (node("SaveImageAdvanced", images=["0", 0], filename_prefix="it", **EXR), ["format", "exr", "png"]),
    (node("SaveImageAdvanced", images=["0", 0], filename_prefix="../it", **PNG), ["filename_prefix", "'../it'"]),
    (node("RegexMatch", string="x", regex_pattern="(", **FLAGS), ["regex_pattern", "'('"]),
    (node("RegexReplace", string="x", regex_pattern="*", replace="y"), ["regex_pattern", "'*'"]),
    (node("SaveImage", images=["0", 0], filename_prefix="../it"), ["filename_prefix", "'../it'"]),
    (node("SaveLatent", samples=["0", 0], filename_prefix="../it"), ["filename_prefix", "'../it'"]),
    (node("SaveText", text=["0", 0], filename_prefix="../it", format="txt"), ["filename_prefix", "'../it'"]),
]


@pytest.fixture(scope="module")
def info() -> ObjectInfo:
    return ObjectInfo(node_classes())


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    folder_paths.configure(str(tmp_path), str(tmp_path), str(tmp_path))


def graph(refused: dict[str, Any]) -> dict[str, Any]:
    """A graph that shows what a node gives, with what it needs before it."""
    kinds = {"SaveLatent": LATENT, "SaveText": node("PrimitiveString", value="x"), "ModelSamplingDiscrete": LOADER}
    before = {"0": kinds.get(refused["class_type"], IMAGE)} if ["0", 0] in refused["inputs"].values() else {}
    return {**before, "1": refused, "2": node("PreviewAny", source=["1", 0])}


@pytest.mark.parametrize(("refused", "parts"), REFUSED)
def test_it_is_refused_before_the_run(info: ObjectInfo, refused: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(GraphError) as error:
        validate(graph(refused), info, any_file=True)
    [line] = error.value.lines
    assert re.search(naming(refused["class_type"], *parts), line)
