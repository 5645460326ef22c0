"""Damaged, foreign and incomplete model files: one line each that says what is wrong."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_adapters
import tiny_models as tiny
import torch
from naming import naming
from safetensors.torch import load_file, save
from tessera import contract
from tessera.host.models.control_loading import load_controlnet
from tessera.host.models.loaders import load_checkpoint, load_clip, load_clip_vision, load_diffusion_model, load_vae
from tessera.host.models.lora import load_lora_file
from tessera.host.text.tokenizer import load_embedding
from tessera.ip_adapter.encoders import choose_encoder
from tessera.ip_adapter.faces import read_embedding
from tessera.ip_adapter.formats import parse_adapter, read_adapter
from tessera.ip_adapter.saved import load_reference
from tessera.weights.files import PICKLES, SAFETENSORS, damage, read_json, read_weights, shapes

Checkpoints = dict[str, tuple[Path, Path]]


class Malicious:
    """Unpickled, it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The message, which is one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5])
def test_cut_off_file(checkpoints: Checkpoints, tmp_path: Path, kept: float) -> None:
    content = checkpoints["sd15"][1].read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(len(content) * kept if 0 < kept < 1 else kept)])
    with pytest.raises(ValueError) as error:
        load_checkpoint(path)
    assert "cut.safetensors cannot be read; download it again (found " in one_line(error)


def safetensors_bytes() -> bytes:
    """A small whole file."""
    return save({"a": torch.arange(64.0)})


def pickle_bytes(zipped: bool = True) -> bytes:
    """The same as a pickle of either kind."""
    stream = io.BytesIO()
    torch.save({"a": torch.arange(64.0)}, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def array_bytes() -> bytes:
    """A face as numpy saves it."""
    stream = io.BytesIO()
    np.save(stream, np.arange(512.0))
    return stream.getvalue()


PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132\n"
DOWNLOADS = {
    "empty": (b"", "an empty file"),
    "page": (PAGE, f"an HTML page of {len(PAGE)} bytes"),
    "error": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a page of 61 bytes"),
    "pointer": (POINTER, f"a Git LFS pointer of {len(POINTER)} bytes"),
    "message": (b"Entry not found", 'text of 15 bytes: "Entry not found"'),
    "zeros": (bytes(1000), "1000 bytes"),
}
WHOLE = {
    ".safetensors": safetensors_bytes(),
    ".bin": pickle_bytes(),
    ".pt": pickle_bytes(zipped=False),
    ".npy": array_bytes(),
    ".json": b'{"a": [1, 2]}',
}
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "checkpoint": (".safetensors .pt", load_checkpoint),
    "denoiser": (".safetensors .bin", load_diffusion_model),
    "vae": (".safetensors .pt", load_vae),
    "text encoder": (".safetensors .bin", lambda path: load_clip([path])),
    "image encoder": (".safetensors .bin", load_clip_vision),
    "image encoder of a node": (".safetensors .bin", contract.load_clip_vision),
    "control network": (".safetensors .pt", load_controlnet),
    "lora": (".safetensors .pt", lambda path: load_lora_file(None, None, path, 1.0, 1.0)),
    "embedding": (".safetensors .bin .pt", lambda path: load_embedding(path, "clip_l")),
    "adapter": (".safetensors .bin .pt", read_adapter),
    "reference": (".safetensors", load_reference),
    "face": (".safetensors .npy", read_embedding),
    "settings": (".json", read_json),
}
CASES = [(reader, ending) for reader, (endings, _) in READERS.items() for ending in endings.split()]


def refusal(path: Path, content: bytes, read: Callable[[Path], Any]) -> str:
    """What a reader says of a file with this content: one line that names it and what to do."""
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read(path)
    assert f"{path.name} cannot be read; download it again" in one_line(error)
    return str(error.value)


@pytest.mark.parametrize("kind", DOWNLOADS)
@pytest.mark.parametrize(("reader", "ending"), CASES)
def test_broken_downloads_are_named(reader: str, ending: str, kind: str, tmp_path: Path) -> None:
    content, found = DOWNLOADS[kind]
    if ending == ".json" and kind in ("message", "zeros"):
        found = f"{len(content)} bytes that are not JSON"
    assert found in refusal(tmp_path / f"download{ending}", content, READERS[reader][1])


@pytest.mark.parametrize(("reader", "ending"), CASES)
def test_files_cut_anywhere_are_named(reader: str, ending: str, tmp_path: Path) -> None:
    whole = WHOLE[ending]
    for kept in {1, 4, 9, 30, 100, len(whole) // 2, len(whole) - 1}:
        if kept < len(whole):
            refusal(tmp_path / f"cut{ending}", whole[:kept], READERS[reader][1])


def test_what_is_left_of_a_cut_file_is_counted(tmp_path: Path) -> None:
    whole = safetensors_bytes()
    said = refusal(tmp_path / "cut.safetensors", whole[:-5], load_checkpoint)
    assert f"{len(whole) - 5} of {len(whole)} bytes, cut short" in said
    said = refusal(tmp_path / "long.safetensors", whole + b"<p>", load_checkpoint)
    assert "3 too many" in said


@pytest.mark.parametrize("ending", [".safetensors", ".bin", ".pt", ".json"])
def test_whole_files_show_no_damage(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"whole{ending}"
    path.write_bytes(WHOLE[ending])
    assert damage(path) is None


def test_faces_as_text_are_no_pages(tmp_path: Path) -> None:
    for kind in ("empty", "page", "pointer"):
        refusal(tmp_path / "face.txt", DOWNLOADS[kind][0], read_embedding)


@pytest.mark.parametrize("kind", ["empty", "page", "pointer", "zeros"])
def test_every_file_of_a_diffusers_folder(checkpoints: Checkpoints, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoints["sd15"][0], folder)
    parts = [path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors")]
    assert len(parts) > 5
    read = 0
    for path in parts:
        content = path.read_bytes()
        path.write_bytes(DOWNLOADS[kind][0])
        try:
            load_checkpoint(folder)
        except ValueError as error:
            read += 1
            assert f"{path} cannot be read; download it again" in str(error)
            assert "\n" not in str(error)
        path.write_bytes(content)
    assert read > 5


def test_no_encoder_fits_because_one_is_broken(sd15_unet: Any, tmp_path: Path) -> None:
    adapter = parse_adapter(tiny_adapters.random_adapter(sd15_unet), "moss")
    (tmp_path / "vit.safetensors").write_bytes(PAGE)
    with pytest.raises(ValueError, match="vit.safetensors .cannot be read; download it again: an HTML page") as error:
        choose_encoder(adapter, ["vit.safetensors"], lambda name: str(tmp_path / name))
    one_line(error)


@pytest.mark.parametrize("wrong", [{1: torch.zeros(2)}, [torch.zeros(2)], torch.zeros(2), {"a": 3}])
def test_pickles_without_names(tmp_path: Path, wrong: Any) -> None:
    path = tmp_path / "numbered.pt"
    torch.save(wrong, path)
    for read in (load_checkpoint, load_vae, read_adapter, lambda path: load_embedding(path, "clip_l")):
        with pytest.raises(ValueError, match="numbered.pt") as error:
            read(path)
        one_line(error)


@pytest.mark.parametrize("stem", ["sd15", "sdxl"])
def test_a_checkpoint_without_some_weights(checkpoints: Checkpoints, tmp_path: Path, stem: str) -> None:
    weights, refused = load_file(checkpoints[stem][1]), 0
    for key in list(weights)[:: len(weights) // 20]:
        path = tiny.save(tmp_path / "gap.safetensors", {k: tensor for k, tensor in weights.items() if k != key})
        try:
            load_checkpoint(path)
        except ValueError as error:
            refused += 1
            assert "gap.safetensors" in str(error)
            assert "\n" not in str(error)
    assert refused > 10


def test_pickle_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(ValueError) as error:
        load_checkpoint(path)
    assert "rename it to .pt, which is what it holds" in one_line(error)


@pytest.mark.parametrize("legacy", [True, False])
def test_pickle_with_code_is_refused(tmp_path: Path, legacy: bool) -> None:
    path, made = tmp_path / "model.ckpt", tmp_path / "folder"
    if legacy:
        path.write_bytes(pickle.dumps({"a": Malicious(made)}, protocol=2))
    else:
        torch.save({"a": Malicious(made)}, path)
    with pytest.raises(ValueError) as error:
        load_checkpoint(path)
    assert "was refused, because it holds more than tensors" in one_line(error) and "mkdir" in one_line(error)
    assert not made.exists()


@pytest.mark.filterwarnings("error")
def test_torch_says_nothing_of_a_pickle_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(pickle.dumps({"a": 1}, protocol=4))
    with pytest.raises(ValueError, match=r"model\.ckpt"):
        read_weights(path)


def states(path: Path) -> list[dict[str, torch.Tensor]]:
    """The weights of MODEL, CLIP and VAE."""
    model, clip, vae = load_checkpoint(path)
    assert clip is not None and vae is not None
    return [m.state_dict() for m in (model.model, clip.cond_stage_model, vae.first_stage_model)]


def test_pickle_of_tensors_is_read(checkpoints: Checkpoints, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": load_file(checkpoints["sd15"][1]), "global_step": 3}, path)
    for ours, theirs in zip(*(states(p) for p in (path, checkpoints["sd15"][1])), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_unsupported_architecture(tmp_path: Path) -> None:
    path = tiny.save(tmp_path / "x.safetensors", {"joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(3, 1)})
    with pytest.raises(ValueError) as error:
        load_checkpoint(path)
    wanted = "x.safetensors: the architecture is not supported: it has joint_blocks.0.x_block.attn.qkv.weight, expected"
    assert wanted in one_line(error) and "Flux.1" in one_line(error)


def changed(config: dict[str, Any], **changes: Any) -> dict[str, torch.Tensor]:
    """An original UNet of another configuration."""
    return tiny.original_unet(tiny.unet_weights(config | changes))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (changed(tiny.UNET, in_channels=7), naming("channels", 7, 4, 8, 9)),
        (
            changed(tiny.UNET) | {"input_blocks.1.1.time_stack.0.norm.weight": torch.zeros(1)},
            naming("UNet", 1, "down_blocks.0.attentions.0.time_stack.0.norm.weight"),
        ),
        (changed(tiny.UNET) | {"out.2.weight.absmax": torch.zeros(1)}, "quantized"),
        (changed(tiny.UNET) | {"middle_block.9.strange": torch.zeros(1)}, "strange"),
    ],
)
def test_other_unets_are_refused(tmp_path: Path, weights: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_diffusion_model(tiny.save(tmp_path / "x.safetensors", weights))
    assert "x.safetensors: " in one_line(error)


def test_incomplete_unet(tmp_path: Path) -> None:
    weights = changed(tiny.UNET)
    weights.pop("out.0.weight")
    with pytest.raises(ValueError, match=naming("UNet", 1, "conv_norm_out.weight")):
        load_diffusion_model(tiny.save(tmp_path / "x.safetensors", weights))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (
            "unet/diffusion_pytorch_model.safetensors",
            "unet has no weights, expected diffusion_pytorch_model.safetensors",
        ),
        ("unet/config.json", "unet/config.json is missing"),
        ("vae/config.json", "vae/config.json is missing"),
        ("tokenizer/merges.txt", "tokenizer needs vocab.json and merges.txt, or tokenizer.json"),
        ("model_index.json", "model_index.json is missing"),
    ],
)
def test_folder_with_a_gap(checkpoints: Checkpoints, tmp_path: Path, missing: str, message: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoints["sd15"][0], folder)
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_checkpoint(folder)
    assert message in one_line(error)


def test_folder_of_another_pipeline(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    with pytest.raises(ValueError, match=naming("WanPipeline", "unet", "transformer")):
        load_checkpoint(tmp_path)
    tiny.save_component(tmp_path / "transformer", "WanTransformer3DModel", {}, {}, "diffusion_pytorch_model")
    with pytest.raises(ValueError, match=naming("WanTransformer3DModel", "UNet2DConditionModel")):
        load_checkpoint(tmp_path)


def test_damaged_json(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoints["sd15"][0], folder)
    (folder / "unet" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=naming("config.json cannot be read; download it again")) as error:
        load_checkpoint(folder)
    one_line(error)


@pytest.mark.parametrize("ending", [*SAFETENSORS, *PICKLES])
def test_a_pipe_is_not_waited_for(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{ending}"
    os.mkfifo(path)
    with pytest.raises(OSError, match="a pipe, not a file"):
        read_weights(path)
    assert shapes(path) == {}
