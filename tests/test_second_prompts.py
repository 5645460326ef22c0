"""SDXL's two prompts, one for each of its text encoders; requests that have both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.bodies.parameters import APPROXIMATED, MAPPED, NOT_YET
from tessera.app.services.convert import Line, convert
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.graph.validation import validate
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.models.loaders import load_checkpoint
from tessera.host.nodes.text import CLIPTextEncode, CLIPTextEncodeSDXL
from tessera.host.schema.object_info import ObjectInfo
from tiny_models import WIDTH

SIZES = {"width": 640, "height": 512, "crop_w": 8, "crop_h": 16, "target_width": 704, "target_height": 576}
LONG = "moss " * 100


@pytest.fixture(scope="module")
def clip(checkpoints: dict[str, tuple[Path, Path]]) -> Any:
    return load_checkpoint(checkpoints["sdxl"][0])[1]


def encoded(clip: Any, text_g: str, text_l: str) -> tuple[torch.Tensor, dict[str, Any]]:
    [[[embedding, values]]] = CLIPTextEncodeSDXL.execute(clip, text_g, text_l, **SIZES).args
    return embedding, values


def test_each_encoder_reads_its_own_prompt(clip: Any) -> None:
    embedding, values = encoded(clip, "moss", "white zigzag")
    ((both, _),), ((moss, pooled),) = (CLIPTextEncode.execute(text, clip).args[0] for text in ("white zigzag", "moss"))
    assert torch.equal(embedding[..., :WIDTH], both[..., :WIDTH])
    assert torch.equal(embedding[..., WIDTH:], moss[..., WIDTH:])
    assert not torch.equal(moss, both)
    assert torch.equal(values["pooled_output"], pooled["pooled_output"])
    assert values.items() >= SIZES.items()


@pytest.mark.parametrize(("text_g", "text_l"), [(LONG, "moss"), ("moss", LONG), ("", "")])
def test_prompts_of_different_length_meet(clip: Any, text_g: str, text_l: str) -> None:
    embedding, _ = encoded(clip, text_g, text_l)
    longer = CLIPTextEncode.execute(max(text_g, text_l, key=len), clip).args[0][0][0]
    assert embedding.shape == longer.shape
    own = longer[..., :WIDTH] if len(text_l) > len(text_g) else longer[..., WIDTH:]
    assert torch.equal(embedding[..., :WIDTH] if len(text_l) > len(text_g) else embedding[..., WIDTH:], own)


def test_other_text_encoders_are_refused(checkpoints: dict[str, tuple[Path, Path]]) -> None:
    with pytest.raises(ValueError, match="not SDXL's"):
        encoded(load_checkpoint(checkpoints["sd15"][0])[1], "a", "b")
    with pytest.raises(ValueError, match="no text encoder"):
        encoded(None, "a", "b")


# Requests

BOTH = {"prompt": "zigzag", "prompt_2": "moss", "negative_prompt": "red", "negative_prompt_2": "blur"}
NAMES = ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2")
MODELS = ("base_xl", "xl_refiner", "other", "sd15")


@pytest.fixture
def models(tmp_path: Path) -> Iterator[None]:
    """Checkpoints, and an embedding, that lie there by name."""
    files = [*(f"checkpoints/{name}.safetensors" for name in MODELS), "embeddings/zig.safetensors"]
    for path in (tmp_path / file for file in files):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    folder_paths.configure(str(tmp_path))
    yield
    folder_paths.configure()


def imported(body: dict[str, Any], **options: Any) -> tuple[dict[str, Line], dict[str, Any]]:
    """The report, and the graph."""
    info = ObjectInfo(node_classes())
    drawing, lines = convert(SERVICES["octoai"], body, info, RequestImages({}), 1, **options)
    prompt = to_prompt(Workflow(ui_graph=json.loads(json.dumps(drawing))), info)
    validate(prompt, info)
    return {line.name: line for line in lines}, prompt


def read(prompt: dict[str, Any], sampler: str = "KSampler") -> list[dict[str, Any]]:
    """The inputs of the nodes that read the positive and the negative prompt of the last such sampler."""
    inputs = [node["inputs"] for node in prompt.values() if node["class_type"] == sampler][-1]
    return [prompt[inputs[side][0]]["inputs"] for side in ("positive", "negative")]


def texts(prompt: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["text_l"], each["text_g"]) for each in read(prompt)]


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("checkpoint", ["base_xl", "other"])
def test_each_prompt_of_a_request_goes_to_its_encoder(checkpoint: str) -> None:
    said, prompt = imported(BOTH | {"checkpoint": checkpoint, "width": 832, "height": 1216}, strict=True)
    assert texts(prompt) == [("zigzag", "moss"), ("red", "blur")]
    for each in read(prompt):
        assert (each["width"], each["height"], each["crop_w"], each["crop_h"]) == (832, 1216, 0, 0)
        assert (each["target_width"], each["target_height"]) == (832, 1216)
    for name, slot in zip(NAMES, ("text_l", "text_g") * 2, strict=True):
        assert said[name].outcome == MAPPED
        assert f"CLIPTextEncodeSDXL.{slot}" in said[name].text
        assert said[name].text.count("CLIPTextEncode") == 1


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        ({"prompt_2"}, [("zigzag", "zigzag"), ("red", "blur")]),
        ({"negative_prompt_2"}, [("zigzag", "moss"), ("red", "red")]),
        ({"negative_prompt", "prompt_2"}, [("zigzag", "zigzag"), ("", "blur")]),
    ],
)
def test_a_second_prompt_that_is_left_out_is_the_first(left_out: set[str], expected: list[tuple[str, str]]) -> None:
    body = {name: text for name, text in BOTH.items() if name not in left_out}
    assert texts(imported(body | {"checkpoint": "base_xl"})[1]) == expected


@pytest.mark.usefixtures("models")
def test_without_second_prompts_one_node_is_enough() -> None:
    _, prompt = imported({"prompt": "zigzag", "negative_prompt": "red", "checkpoint": "base_xl"})
    assert [each["text"] for each in read(prompt)] == ["zigzag", "red"]


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    "asked", [{"checkpoint": "sd15"}, {"checkpoint": "texture-sd"}, {"checkpoint": "sdxl-of-the-service"}]
)
def test_other_models_read_both_prompts_as_one(asked: dict[str, str]) -> None:
    """The demo model is none of SDXL, even where it stands for one."""
    said, prompt = imported(BOTH | asked)
    assert [each["text"] for each in read(prompt)] == ["zigzag, moss", "red, blur"]
    assert [said[name].outcome for name in NAMES] == [MAPPED, APPROXIMATED] * 2
    with pytest.raises(GraphError, match="prompt_2: approximated; joined"):
        imported(BOTH | asked, strict=True)


def test_flux_without_a_negative_has_no_second_one() -> None:
    said, _ = imported(BOTH | {"checkpoint": "flux"})
    assert [said[name].outcome for name in NAMES] == [MAPPED, APPROXIMATED, NOT_YET, NOT_YET]


@pytest.mark.usefixtures("models")
def test_style_and_embeddings_reach_both_encoders() -> None:
    body = BOTH | {"prompt_2": "(zigzag) of moss", "style_preset": "anime", "textual_inversions": {"zig": "zigzag"}}
    said, prompt = imported(body | {"checkpoint": "base_xl"})
    (positive, second), _ = texts(prompt)
    assert positive.startswith("embedding:zig, anime drawing")
    assert second.startswith("(embedding:zig) of moss, anime drawing")
    assert said["textual_inversions"].outcome == MAPPED
    assert "CLIPTextEncodeSDXL.text_g" in said["style_preset"].text


@pytest.mark.usefixtures("models")
def test_a_refiner_reads_the_second_prompts() -> None:
    _, prompt = imported(BOTH | {"checkpoint": "base_xl", "use_refiner": True})
    assert [each["text"] for each in read(prompt, "KSamplerAdvanced")] == ["moss", "blur"]
