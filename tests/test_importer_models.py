"""Models, LoRAs and refiners that requests name, where their files are there and where not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from importing import (
    PROMPT,
    REFERENCE,
    SCENARIO,
    encoded,
    imported,
    nodes_in,
    of_class,
    outcomes,
    sampler,
    with_files,
)
from tessera.app.services.bodies.parameters import MAPPED, NO_EFFECT, NOT_YET
from tessera.app.services.drawing.build import named_file
from tessera.host.errors import GraphError
from tessera.host.schema.object_info import ObjectInfo


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectInfo]:
    yield from nodes_in(tmp_path_factory.mktemp("importer"))


def test_files_are_found_by_their_names() -> None:
    files = ["sd/Moss_v2.safetensors", "other.ckpt"]
    assert named_file("moss_v2", files) == named_file("sd/moss_v2", files) == files[0]
    assert named_file("Other.ckpt", files) == files[1]
    assert named_file("moss", files) is named_file("", files) is None


def test_flux_is_loaded_in_parts(info: ObjectInfo) -> None:
    encoders = ["clip_l.safetensors", "t5xxl_fp16.safetensors"]
    parts = {"UNETLoader": ["flux1-dev.safetensors"], "DualCLIPLoader": encoders, "VAELoader": ["ae.safetensors"]}
    body = SCENARIO | {"modelId": "flux1-dev", "guidance": 2.5}
    _, lines, prompt = imported("scenario-texture", body, with_files(info, **parts))  # pyright: ignore[reportArgumentType]
    assert of_class(prompt, "DualCLIPLoader")["clip_name2"] == encoders[1]
    assert of_class(prompt, "FluxGuidance")["guidance"] == 2.5
    assert sampler(prompt)["cfg"] == 1.0
    assert outcomes(lines)["modelId"] == MAPPED
    said = next(line.text for line in lines if line.name == "guidance")
    assert "FluxGuidance.guidance" in said
    assert "cfg" not in said
    assert of_class(prompt, "EmptySD3LatentImage")["width"] == 512


def test_refiner_goes_on_where_the_first_model_stops(info: ObjectInfo) -> None:
    files = {"CheckpointLoaderSimple": ["base_xl.safetensors", "sd_xl_refiner_1.0.safetensors"]}
    body = PROMPT | {"checkpoint": "base_xl", "use_refiner": True, "steps": 40, "seed": 5}
    _, lines, prompt = imported("octoai", body, with_files(info, **files))  # pyright: ignore[reportArgumentType]
    first, second = [node["inputs"] for node in prompt.values() if node["class_type"] == "KSamplerAdvanced"]
    assert (first["start_at_step"], first["end_at_step"], first["add_noise"]) == (0, 32, "enable")
    assert (second["start_at_step"], second["end_at_step"], second["add_noise"]) == (32, 40, "disable")
    assert first["return_with_leftover_noise"] == "enable"
    assert prompt[second["model"][0]]["inputs"]["ckpt_name"] == files["CheckpointLoaderSimple"][1]
    said = outcomes(lines)
    assert {said[name] for name in ("use_refiner", "high_noise_frac", "steps", "seed", "cfg_scale")} == {MAPPED}


def test_refiner_that_is_missing_is_said(info: ObjectInfo) -> None:
    _, lines, _ = imported("octoai", PROMPT | {"use_refiner": True, "high_noise_frac": 0.5}, info)
    said = {line.name: line for line in lines}
    assert said["use_refiner"].outcome == NOT_YET
    assert "models/checkpoints" in said["use_refiner"].text


@pytest.mark.parametrize(("share", "parts"), [(0.0, (0, 0, 20)), (0.25, (0, 5, 20)), (1.0, (0, 20, 20))])
@pytest.mark.parametrize("strength", [None, 0.5])
def test_refiner_takes_its_share_of_the_steps(
    info: ObjectInfo, share: float, parts: tuple[int, int, int], strength: float | None
) -> None:
    files = {"CheckpointLoaderSimple": ["base_xl.safetensors", "xl_refiner.safetensors"]}
    body = PROMPT | {"checkpoint": "base_xl", "use_refiner": True, "steps": 20, "high_noise_frac": share}
    body |= {"init_image": encoded(), "strength": strength} if strength else {}
    _, _, prompt = imported("octoai", body, with_files(info, **files))  # pyright: ignore[reportArgumentType]
    samplers = [node["inputs"] for node in prompt.values() if node["class_type"] == "KSamplerAdvanced"]
    begin = 10 if strength else 0
    change = max(begin, parts[1])
    shares = [(begin, change), (change, parts[2])]
    found = [(each["start_at_step"], each["end_at_step"]) for each in samplers]
    # A sampler that has no step would not add its noise.
    assert found == [(start, end) for start, end in shares if start < end]
    assert [each["add_noise"] for each in samplers] == ["enable", "disable"][: len(found)]


def test_what_flux_does_not_take_is_said(info: ObjectInfo) -> None:
    flux = {"modelId": "flux.1-dev"}
    lines = imported("scenario-ip-adapter", REFERENCE | flux, info)[1]
    lines += imported("leonardo", PROMPT | flux | {"negative_prompt": "blur"}, info)[1]
    said = {line.name: line for line in lines}
    assert {said[name].outcome for name in ("ipAdapterImages", "ipAdapterType", "negative_prompt")} == {NOT_YET}
    with pytest.raises(GraphError, match="ipAdapterImages"):
        imported("scenario-ip-adapter", REFERENCE | flux, info, strict=True)


def test_epoch_and_missing_loras(info: ObjectInfo) -> None:
    files = {"LoraLoader": ["b.safetensors", "style-3.safetensors"]}
    body = SCENARIO | {"modelId": "style", "modelEpoch": "3", "concepts": [{"modelId": name} for name in "abc"]}
    _, lines, prompt = imported("scenario-texture", body, with_files(info, **files), model="texture-flux")  # pyright: ignore[reportArgumentType]
    loaded = [node["inputs"]["lora_name"] for node in prompt.values() if node["class_type"] == "LoraLoader"]
    assert loaded == ["b.safetensors", "style-3.safetensors"]
    said = {line.name: line for line in lines}
    assert said["concepts"].outcome == NOT_YET
    assert '"a", "c"' in said["concepts"].text
    assert of_class(prompt, "TesseraDemoCheckpoint") == {"name": "texture-flux"}


@pytest.mark.parametrize(
    ("checkpoint", "refiner"),
    [("flux1-dev-xl", "any_refiner"), ("v1-5-moss", "sd_xl_refiner"), ("moss_xl", "flux_refiner")],
)
def test_a_refiner_of_another_family_is_left_out(info: ObjectInfo, checkpoint: str, refiner: str) -> None:
    """It cannot go on with the other's latents: with those of Flux, it failed in the run."""
    files: Any = with_files(info, CheckpointLoaderSimple=[f"{checkpoint}.safetensors", f"{refiner}.safetensors"])
    body = PROMPT | {"checkpoint": checkpoint, "use_refiner": True, "high_noise_frac": 0.5, "sampler": "DDIM"}
    _, lines, prompt = imported("octoai", body, files)
    said = outcomes(lines)
    assert [said[name] for name in ("use_refiner", "high_noise_frac", "sampler")] == [NO_EFFECT, NO_EFFECT, MAPPED]
    assert of_class(prompt, "TesseraSchedulerKSampler")["scheduler"] == "DDIMScheduler"
