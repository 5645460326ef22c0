"""Damaged, foreign and incomplete model files: one line each that says what is wrong."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from safetensors.torch import load_file
from tessera.host.loaders import load_checkpoint, load_diffusion_model

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
    assert "cut.safetensors is no readable safetensors file: it is cut off or damaged" in one_line(error)


def test_pickle_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(ValueError) as error:
        load_checkpoint(path)
    assert "it is a pickle under another name; rename it to .ckpt" in one_line(error)


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
        (changed(tiny.UNET, use_linear_projection=True), "which is Stable Diffusion 2"),
        (changed(tiny.UNET, in_channels=9), "takes 9 channels, expected 4"),
        (changed(tiny.UNET) | {"input_blocks.1.1.time_stack.0.norm.weight": torch.zeros(1)}, "weights too many"),
        (changed(tiny.UNET) | {"out.2.weight.scale_weight": torch.zeros(1)}, "quantized"),
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
    with pytest.raises(ValueError, match="the UNet lacks 1 weights, such as conv_norm_out.weight; it is incomplete"):
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
    with pytest.raises(ValueError, match="is a WanPipeline without unet or transformer"):
        load_checkpoint(tmp_path)
    tiny.save_component(tmp_path / "transformer", "SD3Transformer2DModel", {}, {}, "diffusion_pytorch_model")
    with pytest.raises(ValueError, match="is a SD3Transformer2DModel, expected one of"):
        load_checkpoint(tmp_path)


def test_damaged_json(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoints["sd15"][0], folder)
    (folder / "unet" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is no JSON") as error:
        load_checkpoint(folder)
    one_line(error)
