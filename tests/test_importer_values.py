"""Values of requests that the services read in ways of their own."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from importing import (
    DATA_URL,
    PROMPT,
    SCENARIO,
    encoded,
    imported,
    nodes_in,
    of_class,
    outcomes,
    sampler,
)
from tessera.app.services.bodies.parameters import APPROXIMATED, MAPPED, NO_EFFECT
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.schema.object_info import ObjectInfo


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectInfo]:
    yield from nodes_in(tmp_path_factory.mktemp("importer"))


def test_strength_runs_the_steps_that_the_services_run(info: ObjectInfo) -> None:
    body = PROMPT | {"init_image": encoded(), "strength": 0.5, "num_inference_steps": 21, "width": 64, "height": 64}
    sampled = sampler(imported("modelslab", body, info)[2])
    assert (sampled["steps"], sampled["denoise"]) == (10, 0.5)
    body = PROMPT | {"init_image_id": "x", "init_strength": 0.1, "scheduler": "LEONARDO", "num_inference_steps": 20}
    image = Path(folder_paths.get_input_directory()) / "own.png"
    image.write_bytes(base64.b64decode(encoded()))
    sampled = sampler(imported("leonardo", body, info, {"x": image})[2])
    assert sampled["denoise"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("service", "sent", "documented"),
    [
        ("octoai", {"image_encoding": "JPEG"}, {"image_encoding": "jpeg"}),
        ("modelslab", {"scheduler": "unipcMultistep "}, {"scheduler": "UniPCMultistepScheduler"}),
        ("leonardo", {"presetStyle": "anime"}, {"presetStyle": "ANIME"}),
    ],
)
def test_choices_are_known_in_any_case_of_letters(
    service: str, sent: dict[str, Any], documented: dict[str, Any], info: ObjectInfo
) -> None:
    assert imported(service, PROMPT | sent, info)[2] == imported(service, PROMPT | documented, info)[2]


def test_an_empty_text_of_modelslab_is_a_value_that_is_left_out(info: ObjectInfo) -> None:
    empty = dict.fromkeys(("seed", "scheduler", "lora_strength", "tomesd", "clip_skip", "strength"), "")
    _, said, made = imported("modelslab", PROMPT | empty | {"vae": "", "other": ""}, info)
    assert made == imported("modelslab", PROMPT, info)[2]
    assert {line.name for line in said} >= {"vae", "other", "tomesd"}


def test_a_scheduler_that_is_replaced_is_approximated(info: ObjectInfo) -> None:
    assert outcomes(imported("leonardo", PROMPT | {"scheduler": "LEONARDO"}, info)[1])["scheduler"] == APPROXIMATED
    assert outcomes(imported("leonardo", PROMPT | {"scheduler": "DPM_SOLVER"}, info)[1])["scheduler"] == MAPPED


def test_guidance_below_one_does_without_the_negative_prompt(info: ObjectInfo) -> None:
    _, lines, prompt = imported("scenario-texture", SCENARIO | {"guidance": 0.2, "negativePrompt": "blur"}, info)
    assert sampler(prompt)["cfg"] == 1.0
    assert outcomes(lines)["negativePrompt"] == NO_EFFECT
    assert "blur" not in [node["inputs"].get("text") for node in prompt.values()]


def test_lists_of_references_go_before_their_deprecated_forms(info: ObjectInfo) -> None:
    body = SCENARIO | {"ipAdapterImages": [DATA_URL], "ipAdapterImage": "gone", "ipAdapterScale": 0.1}
    _, lines, _ = imported("scenario-ip-adapter", body | {"ipAdapterScales": [0.7]}, info)
    said = {line.name: str(line) for line in lines}
    assert "ignored beside ipAdapterImages" in said["ipAdapterImage"]
    assert "deprecated, use ipAdapterImages" in said["ipAdapterImage"]
    assert "ignored beside ipAdapterScales" in said["ipAdapterScale"]


@pytest.mark.parametrize(("ratio", "size"), [("1:1", (1024, 1024)), ("16:9", (1360, 768)), ("1:4", (512, 2048))])
def test_aspect_ratio_gives_a_size(info: ObjectInfo, ratio: str, size: tuple[int, int]) -> None:
    body = SCENARIO | {"modelId": "flux.1.1-pro-ultra", "aspectRatio": ratio}
    latent = of_class(imported("scenario-ip-adapter", body, info)[2], "EmptyLatentImage", "EmptySD3LatentImage")
    assert (latent["width"], latent["height"]) == size


@pytest.mark.parametrize("ratio", ["16x9", "0:1", "1:5", "9" * 5000, ""])
def test_wrong_aspect_ratio_is_refused(info: ObjectInfo, ratio: str) -> None:
    with pytest.raises(GraphError, match="aspectRatio"):
        imported("scenario-ip-adapter", SCENARIO | {"modelId": "flux.1.1-pro-ultra", "aspectRatio": ratio}, info)


def test_strength_beyond_every_number_is_refused(info: ObjectInfo) -> None:
    with pytest.raises(GraphError, match="expected a number from 0 to 2"):
        imported("leonardo", PROMPT | {"controlnets": [{"initImageId": "a", "weight": 10**400}]}, info)


def image_prompts(prompt: dict[str, Any]) -> list[dict[str, Any]]:
    return [node["inputs"] for node in prompt.values() if node["class_type"] == "TesseraImagePrompt"]


def test_transfer_images_act_where_the_prompt_has_their_word(info: ObjectInfo) -> None:
    samples = {"teal": [encoded(), encoded(colour="red")], "moss": [encoded()], "zig": [], "zag": None}
    _, lines, prompt = imported("octoai", PROMPT | {"transfer_images": samples}, info)
    acting = image_prompts(prompt)
    assert [(each["scale"], each["type"]) for each in acting] == [(0.45, "full")] * 2
    said = next(line for line in lines if line.name == "transfer_images")
    assert said.outcome == APPROXIMATED
    assert '"moss", "zig", "zag"' in said.text
    _, lines, prompt = imported("octoai", PROMPT | {"transfer_images": {"moss": [encoded()]}}, info)
    assert not image_prompts(prompt)
    assert outcomes(lines)["transfer_images"] == NO_EFFECT


def test_steps_that_modelslab_does_not_list(info: ObjectInfo) -> None:
    """The nearest are taken, and told; numbers may be text, and switches flags."""
    body = PROMPT | {"num_inference_steps": "30", "safety_checker": False, "enhance_prompt": "no", "width": "720"}
    _, lines, prompt = imported("modelslab", body, info)
    assert of_class(prompt, "KSampler", "TesseraSchedulerKSampler")["steps"] == 31
    (line,) = [line for line in lines if line.name == "num_inference_steps"]
    assert line.outcome == APPROXIMATED
    assert '"30" is none of 21, 31, 41' in line.text
    with pytest.raises(GraphError, match="num_inference_steps: approximated.*refused with --strict"):
        imported("modelslab", body, info, strict=True)
    imported("modelslab", body | {"num_inference_steps": "31"}, info)


@pytest.mark.parametrize("model", ["texture-sd", "texture-flux", None])
def test_a_demo_model_does_not_change_what_octoai_allows(info: ObjectInfo, model: str | None) -> None:
    """The endpoint is Generate SDXL, whatever draws the image here."""
    body = PROMPT | {"width": 1536, "height": 640}
    _, _, prompt = imported("octoai", body, info, model=model)
    assert of_class(prompt, "EmptyLatentImage", "EmptySD3LatentImage")["width"] == 1536
    with pytest.raises(GraphError, match=r"found 512x512; expected one of .* for SDXL; say with --family"):
        imported("octoai", PROMPT | {"width": 512, "height": 512}, info, model=model)
    imported("octoai", PROMPT | {"width": 512, "height": 512}, info, model=model, family="sd15")


@pytest.mark.parametrize(
    ("name", "body", "size"),
    [
        # texture-sd repeats in units of 32 px, texture-flux in tokens of 16 px.
        ("scenario-texture", SCENARIO | {"width": 520, "height": 504}, (512, 512)),
        ("scenario-texture", SCENARIO | {"modelId": "flux.1-dev", "width": 536, "height": 504}, (544, 512)),
        ("scenario-ip-adapter", SCENARIO | {"width": 520, "height": 504}, (520, 504)),
        ("modelslab-community", PROMPT | {"panorama": "yes", "width": 520, "height": 504}, (512, 504)),
        ("leonardo", PROMPT | {"tiling": True, "width": 40, "height": 8 * 5}, (32, 32)),
        ("leonardo", PROMPT | {"width": 40, "height": 40}, (40, 40)),
    ],
)
def test_a_texture_has_the_nearest_size_that_its_model_repeats(
    name: str, body: dict[str, Any], size: tuple[int, int], info: ObjectInfo
) -> None:
    """It failed in the run."""
    _, lines, prompt = imported(name, body, info)
    latent = of_class(prompt, "EmptyLatentImage", "EmptySD3LatentImage")
    assert (latent["width"], latent["height"]) == size
    for side, made in zip(("width", "height"), size, strict=True):
        assert outcomes(lines)[side] == (MAPPED if body[side] == made else APPROXIMATED)
