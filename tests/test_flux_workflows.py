"""Whole Flux graphs on the embedded host, from a diffusers folder, from one file, and from single parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
from PIL import Image
from tessera.app.cli.main import main

VAE = tiny.VAE | {"latent_channels": 16}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the same random Flux as a folder, as a file, and as parts of both kinds."""
    root = tmp_path_factory.mktemp("models")
    folder = tiny.flux_folder(root / "checkpoints" / "flux")
    vae = tiny.vae_weights(VAE)
    tiny.save_component(folder / "vae", "AutoencoderKL", VAE, vae, "diffusion_pytorch_model")
    file = tiny.flux_file(root / "checkpoints" / "flux.safetensors")
    weights = tiny.with_prefix("model.diffusion_model.", tiny.original_flux(tiny.flux_weights()))
    weights |= tiny.with_prefix("vae.", tiny.original_vae(vae))
    weights |= tiny.with_prefix("text_encoders.clip_l.transformer.", tiny.text_weights(tiny.text_config()))
    tiny.save(file, weights | tiny.with_prefix("text_encoders.t5xxl.transformer.", tiny.t5_weights()))
    for kind, source in (("diffusion_models", "transformer"), ("vae", "vae"), ("text_encoders", "text_encoder")):
        (root / kind).mkdir()
        (root / kind / "folder").symlink_to(folder / source, target_is_directory=True)
    tiny.save(root / "diffusion_models" / "flux.safetensors", tiny.original_flux(tiny.flux_weights()))
    tiny.save(root / "vae" / "ae.safetensors", tiny.original_vae(vae))
    tiny.save(root / "text_encoders" / "clip_l.safetensors", tiny.text_weights(tiny.text_config()))
    tiny.save(root / "text_encoders" / "t5xxl.safetensors", tiny.t5_weights())
    tiny.save_t5_tokenizer(root / "text_encoders")
    return root


def _checkpoint(name: str) -> Any:
    return {"1": ("CheckpointLoaderSimple", {"ckpt_name": name})}, ["1", 0], ["1", 1], ["1", 2]


def _parts(unet: str, clip: str, vae: str) -> Any:
    nodes = {
        "1": ("UNETLoader", {"unet_name": unet, "weight_dtype": "default"}),
        "2": ("DualCLIPLoader", {"clip_name1": clip, "clip_name2": "t5xxl.safetensors", "type": "flux"}),
        "3": ("VAELoader", {"vae_name": vae}),
    }
    return nodes, ["1", 0], ["2", 0], ["3", 0]


LOADERS = {
    "folder": _checkpoint("flux"),
    "file": _checkpoint("flux.safetensors"),
    "parts in folders": _parts("folder", "folder", "folder"),
    "parts in files": _parts("flux.safetensors", "clip_l.safetensors", "ae.safetensors"),
}


def _graph(loaders: str, strength: float = 4.0) -> dict[str, Any]:
    """Flux as ComfyUI's own template draws it, with a negative prompt."""
    nodes, model, clip, vae = LOADERS[loaders]
    nodes = nodes | {
        "10": ("CLIPTextEncodeFlux", {"clip": clip, "clip_l": "red", "t5xxl": "red bricks", "guidance": 3.5}),
        "11": ("CLIPTextEncode", {"clip": clip, "text": "grass"}),
        "12": ("FluxGuidance", {"conditioning": ["10", 0], "guidance": 2.5}),
        "13": ("EmptySD3LatentImage", {"width": 64, "height": 48, "batch_size": 2}),
        "14": (
            "ModelSamplingFlux",
            {"model": model, "max_shift": 1.15, "base_shift": 0.5, "width": 64, "height": 48},
        ),
        "15": (
            "TesseraFluxNegative",
            {
                "model": ["14", 0],
                "negative": ["11", 0],
                "strength": strength,
                "method": "auto",
                "start_percent": 0.0,
                "end_percent": 0.5,
            },
        ),
        "16": ("BasicGuider", {"model": ["15", 0], "conditioning": ["12", 0]}),
        "17": ("RandomNoise", {"noise_seed": 3}),
        "18": ("KSamplerSelect", {"sampler_name": "euler"}),
        "19": ("BasicScheduler", {"model": ["15", 0], "scheduler": "simple", "steps": 3, "denoise": 1.0}),
        "20": (
            "SamplerCustomAdvanced",
            {
                "noise": ["17", 0],
                "guider": ["16", 0],
                "sampler": ["18", 0],
                "sigmas": ["19", 0],
                "latent_image": ["13", 0],
            },
        ),
        "21": ("VAEDecode", {"samples": ["20", 0], "vae": vae}),
        "22": ("SaveImage", {"images": ["21", 0], "filename_prefix": "flux"}),
    }
    return {number: {"class_type": kind, "inputs": inputs} for number, (kind, inputs) in nodes.items()}


def _draw(graph: dict[str, Any], models: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    folder.mkdir(parents=True)
    (folder / "graph.json").write_text(json.dumps(graph))
    arguments = ["run", str(folder / "graph.json"), "--json", "--device", "cpu"]
    code = main([*arguments, "--models-dir", str(models), "--output-dir", str(folder)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    paths = [each["path"] for each in json.loads(printed.out)["outputs"]["22"]["images"]]
    return [np.asarray(Image.open(path)) for path in paths]


@pytest.mark.parametrize("loaders", LOADERS)
def test_every_way_to_load_flux_draws_the_same_images(
    loaders: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = _draw(_graph(loaders), models, tmp_path / "one", capsys)
    assert [image.shape for image in images] == [(48, 64, 3)] * 2
    expected = _draw(_graph("folder"), models, tmp_path / "other", capsys)
    assert all(np.array_equal(*pair) for pair in zip(images, expected, strict=True))
    assert not np.array_equal(images[0], images[1]) and np.std(images[0]) > 5


def test_the_negative_changes_the_image_and_strength_zero_does_not(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = _graph("folder")
    without["16"]["inputs"]["model"] = without["19"]["inputs"]["model"] = ["14", 0]
    graphs = {"without": without, "zero": _graph("folder", 0.0), "four": _graph("folder", 4.0)}
    drawn = {name: _draw(graph, models, tmp_path / name, capsys)[0] for name, graph in graphs.items()}
    assert np.array_equal(drawn["zero"], drawn["without"]) and not np.array_equal(drawn["four"], drawn["without"])


def test_an_imported_request_has_the_defaults_of_a_new_node(tmp_path: Path) -> None:
    request = {"prompt": "moss", "modelId": "flux.1-dev", "negativePrompt": "red", "negativePromptStrength": 4}
    (tmp_path / "request.json").write_text(json.dumps(request | {"width": 1024, "height": 1024}))
    out = tmp_path / "workflow.json"
    assert main(["import", "scenario-texture", str(tmp_path / "request.json"), "-o", str(out)]) == 0
    nodes = json.loads(out.read_text(encoding="utf-8"))["nodes"]
    steered = [node["widgets_values"] for node in nodes if node["type"] == "TesseraFluxNegative"]
    assert steered == [[4.0, "nag_strong", 0.0, 1.0]]


@pytest.mark.parametrize(("length", "expected"), [(16, 16), (512, 256), (None, 256)])
def test_prompts_are_padded_to_256_tokens_or_to_what_the_tokenizer_takes(
    length: int | None, expected: int, tmp_path: Path
) -> None:
    from tessera.host.models.loaders import load_checkpoint

    folder = tiny.flux_folder(tmp_path / "flux")
    if length is not None:
        (folder / "tokenizer_2" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": length}))
    clip = load_checkpoint(folder)[1]
    assert clip is not None and clip.encode_from_tokens(clip.tokenize("red")).shape[1] == expected
