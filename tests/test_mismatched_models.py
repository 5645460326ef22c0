"""Models that do not belong together, and broken weights: one line each, before the first step."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from naming import naming
from serving import Client, answer, serve
from tessera.app import registry
from tessera.app.checking import mismatches, refuse, validate
from tessera.app.cli.main import main
from tessera.app.engines.embedded import EmbeddedEngine
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.models.families import make_model
from tessera.host.models.headers import denoiser_channels, file_vae_channels
from tessera.host.models.loaders import load_diffusion_model, load_vae
from tessera.host.nodes.sampling import ksampler

SIXTEEN = tiny.VAE | {"latent_channels": 16}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of models."""
    tmp_path /= "models"
    for folder in ("diffusion_models", "vae"):
        (tmp_path / folder).mkdir(parents=True)
    tiny.save(tmp_path / "diffusion_models" / "sd15.safetensors", tiny.original_unet(tiny.unet_weights(tiny.UNET)))
    tiny.save(tmp_path / "diffusion_models" / "flux.safetensors", tiny.original_flux(tiny.flux_weights()))
    tiny.save(tmp_path / "vae" / "four.safetensors", tiny.original_vae(tiny.vae_weights()))
    tiny.save(tmp_path / "vae" / "sixteen.safetensors", tiny.original_vae(tiny.vae_weights(SIXTEEN)))
    return tmp_path


def prompt(denoiser: str, vae: str, guided: bool = False) -> dict[str, Any]:
    """A graph that decodes what a model made, by a sampler or by a guider."""
    sampled = {"latent_image": ["3", 0]}
    sampler = node("SamplerCustomAdvanced", guider=["6", 0], **sampled) if guided else node("KSampler", model=["7", 0])
    return {
        "1": node("UNETLoader", unet_name=denoiser, weight_dtype="default"),
        "2": node("VAELoader", vae_name=vae),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": {**sampler, "inputs": {**sampler["inputs"], **sampled}},
        "5": node("VAEDecode", samples=["8", 0], vae=["2", 0]),
        "6": node("BasicGuider", model=["7", 0]),
        "7": node("ModelSamplingFlux", model=["1", 0]),
        "8": node("LatentUpscaleBy", samples=["4", 0], upscale_method="area", scale_by=2.0),
    }


def check(graph: dict[str, Any], info: Any) -> None:
    refuse(mismatches(graph, info))


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(("denoiser", "right", "wrong"), [("sd15", "four", "sixteen"), ("flux", "sixteen", "four")])
def test_a_vae_of_other_channels_is_told_before_the_run(
    models: Path, denoiser: str, right: str, wrong: str, guided: bool
) -> None:
    folder_paths.configure(str(models))
    info = registry.object_info()
    check(prompt(f"{denoiser}.safetensors", f"{right}.safetensors", guided), info)
    channels = {"four": 4, "sixteen": 16}
    with pytest.raises(GraphError, match=naming("node 5 VAEDecode", "vae", channels[wrong], channels[right])) as raised:
        check(prompt(f"{denoiser}.safetensors", f"{wrong}.safetensors", guided), info)
    assert len(raised.value.lines) == 1


def test_long_chains_of_latents_are_no_trouble(models: Path) -> None:
    folder_paths.configure(str(models))
    graph = prompt("flux.safetensors", "four.safetensors")
    for number in range(2000):
        before = ["4", 0] if number == 0 else [f"more {number - 1}", 0]
        graph[f"more {number}"] = node("LatentMultiply", samples=before, multiplier=1.0)
    graph["8"]["inputs"]["samples"] = ["more 1999", 0]
    with pytest.raises(GraphError, match=naming("node 5 VAEDecode", "vae", 4, 16)):
        check(graph, registry.object_info())


def test_latents_of_images_are_not_a_models(models: Path) -> None:
    folder_paths.configure(str(models))
    graph = prompt("flux.safetensors", "four.safetensors")
    graph["9"] = node("VAEEncode", pixels=["5", 0], vae=["2", 0])
    graph["8"]["inputs"]["samples"] = ["9", 0]
    check(graph, registry.object_info())


def test_headers_tell_nothing_of_what_is_broken_or_unknown(models: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((models / "vae" / "four.safetensors").read_bytes()[:100])
    strange = tiny.save(tmp_path / "strange.safetensors", {"x": torch.zeros(2, 2)})
    for path in (broken, strange, tmp_path / "missing.safetensors", tmp_path):
        assert denoiser_channels(path) is None and file_vae_channels(path) is None


def component(folder: Path, config: dict[str, Any], weights: tiny.StateDict) -> Path:
    """A part of a diffusers folder, in two files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(weights)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, held in shards.items():
        tiny.save(folder / shard, {name: weights[name] for name in held})
    places = {name: shard for shard, held in shards.items() for name in held}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


FORMS = {
    "safetensors": lambda path, weights: tiny.save(path.with_suffix(".safetensors"), weights),
    "archive": lambda path, weights: _pickled(path.with_suffix(".ckpt"), {"state_dict": weights, "epoch": 3}, True),
    "pickle of old": lambda path, weights: _pickled(path.with_suffix(".pt"), weights, False),
}


def _pickled(path: Path, content: Any, archive: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_channels_are_told_by_every_form_of_a_file(tmp_path: Path, form: str) -> None:
    write = FORMS[form]
    unet, flux = tiny.original_unet(tiny.unet_weights(tiny.UNET)), tiny.original_flux(tiny.flux_weights())
    vae = tiny.original_vae(tiny.vae_weights(SIXTEEN))
    whole = tiny.with_prefix("model.diffusion_model.", unet) | tiny.with_prefix("first_stage_model.", vae)
    assert denoiser_channels(write(tmp_path / "unet", unet)) == 4
    assert denoiser_channels(write(tmp_path / "flux", flux)) == 16
    assert file_vae_channels(write(tmp_path / "vae", vae)) == 16
    checkpoint = write(tmp_path / "whole", whole)
    assert (denoiser_channels(checkpoint), file_vae_channels(checkpoint)) == (4, 16)


def test_channels_are_told_by_folders(tmp_path: Path) -> None:
    unet = component(tmp_path / "both" / "unet", tiny.UNET, tiny.unet_weights(tiny.UNET))
    vae = component(tmp_path / "both" / "vae", SIXTEEN, tiny.vae_weights(SIXTEEN))
    assert (denoiser_channels(tmp_path / "both"), file_vae_channels(tmp_path / "both")) == (4, 16)
    assert (denoiser_channels(unet), file_vae_channels(vae)) == (4, 16)


def saved(graph: dict[str, Any]) -> dict[str, Any]:
    text = node("TesseraDemoCheckpoint", name="texture-sd")
    said = node("CLIPTextEncode", text="moss", clip=["10", 1])
    settings = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    sampler = {
        **graph["4"],
        "inputs": {**graph["4"]["inputs"], **settings, "positive": ["11", 0], "negative": ["11", 0]},
    }
    steps = {"max_shift": 1.15, "base_shift": 0.5, "width": 64, "height": 64}
    shifted = {**graph["7"], "inputs": {**graph["7"]["inputs"], **steps}}
    kept = {key: graph[key] for key in "12358"}
    return {
        **kept,
        "4": sampler,
        "7": shifted,
        "9": node("SaveImage", images=["5", 0], filename_prefix="a"),
        "10": text,
        "11": said,
    }


def refusals(models: Path, graph: dict[str, Any]) -> dict[str, list[str]]:
    """What each program says of a workflow before it runs it."""
    file = models / "workflow.json"
    file.write_text(json.dumps(graph))
    found = {}
    for name in ("run", "check"):
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            assert main([name, str(file), "--models-dir", str(models)]) == 2
        found[name] = told.getvalue().splitlines()
    engine = EmbeddedEngine(str(models))
    for changed in (None, ["4"]):
        with pytest.raises(GraphError) as raised:
            engine.check(graph, changed=changed)
        found[f"batch, {changed}"] = raised.value.lines

    async def test(client: Client) -> None:
        status, told = await answer(client, "POST", "/prompt", json={"prompt": graph})
        assert status == 400
        (wrong,) = told["node_errors"]["5"]["errors"]
        assert (wrong["type"], wrong["extra_info"]["input_name"]) == ("custom_validation_failed", "vae")
        found["serve"] = [wrong["extra_info"]["line"]]

    serve(models.parent, test, classes=None)
    return found


def test_every_program_names_the_vae_before_the_run(models: Path) -> None:
    wrong = refusals(models, saved(prompt("flux.safetensors", "four.safetensors")))
    for program, lines in wrong.items():
        assert len(lines) == 1, program
        assert re.search(naming("node 5 VAEDecode", "vae", "four.safetensors", 4, "flux.safetensors", 16), lines[0]), (
            program
        )
    folder_paths.configure(str(models))
    graph = saved(prompt("flux.safetensors", "sixteen.safetensors"))
    assert validate(graph, registry.object_info())[1] == ["9"]


def test_text_of_another_family_is_named_before_the_first_step(sd15_unet: Any) -> None:
    model = make_model(tiny.flux_weights())
    width = model.model.diffusion_model.config.joint_attention_dim
    text = [[torch.zeros(1, 7, width + 8), {"pooled_output": torch.zeros(1, 64)}]]
    with pytest.raises(ValueError, match=naming(width + 8, width, "model family")):
        ksampler(model, 1, 4, 1.0, "euler", "simple", text, text, {"samples": torch.zeros(1, 16, 8, 8)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(models: Path, value: float) -> None:
    weights = tiny.original_vae(tiny.vae_weights())
    weights["decoder.conv_in.bias"][1] = value
    path = tiny.save(models / "nan.safetensors", weights)
    with pytest.raises(ValueError, match=naming("nan.safetensors", "VAE", "not finite", "decoder.conv_in.bias")):
        load_vae(path)


def test_weights_that_a_precision_does_not_hold() -> None:
    from tessera.host.runtime import devices

    weights = tiny.unet_weights(tiny.UNET)
    weights["conv_in.bias"][0] = 1e6
    make_model(weights)
    devices.configure("cpu", "fp16")
    try:
        with pytest.raises(ValueError, match=naming("UNet", "float16", "conv_in.bias", "--dtype fp32")):
            make_model(weights)
    finally:
        devices.configure()


def test_whole_numbers_for_weights(tmp_path: Path) -> None:
    weights = {key: tensor.long() for key, tensor in tiny.original_unet(tiny.unet_weights(tiny.UNET)).items()}
    path = tiny.save(tmp_path / "whole.safetensors", weights)
    with pytest.raises(ValueError, match=naming("whole.safetensors", "int64", "floating point")):
        load_diffusion_model(path)
