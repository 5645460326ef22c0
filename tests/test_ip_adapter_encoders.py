"""Which image encoder goes with an adapter, and adapters whose projector is for another model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from naming import naming
from safetensors.torch import save_file
from tessera.ip_adapter.encoders import check_encoder, choose_encoder
from tessera.ip_adapter.formats import Adapter, parse_adapter
from tessera.weights.files import read_spread
from tiny_adapters import Encoder, random_adapter

TABLE = "vision_model.embeddings.position_embedding.weight"


def _adapter(kind: str, features: int) -> Adapter:
    return Adapter("adapter.bin", kind, {}, {}, 16, 4, features, "")


@pytest.mark.parametrize("layout", ["transformers", "openclip"])
@pytest.mark.parametrize(("kind", "features", "side"), [("base", 768, 224), ("plus", 1024, 336)])
def test_of_two_encoders_that_fit_auto_takes_the_resolution(
    tmp_path: Path, kind: str, features: int, side: int, layout: str
) -> None:
    for each in (224, 336):
        table = torch.zeros((each // 14) ** 2 + 1, 1024, dtype=torch.float16)
        if layout == "transformers":
            weights = {"visual_projection.weight": torch.zeros(768, 1024, dtype=torch.float16), TABLE: table}
        else:
            weights = {"visual.proj": torch.zeros(1024, 768, dtype=torch.float16), "visual.positional_embedding": table}
        save_file(weights, tmp_path / f"{each}.safetensors")
    for names in (["224.safetensors", "336.safetensors"], ["336.safetensors", "224.safetensors"]):
        assert choose_encoder(_adapter(kind, features), names, lambda n: str(tmp_path / n)) == f"{side}.safetensors"
    alone = [f"{560 - side}.safetensors"]
    with pytest.raises(ValueError, match=naming("adapter.bin", "CLIP ViT-L", "bytes", alone[0], "positions")):
        choose_encoder(_adapter(kind, features), alone, lambda n: str(tmp_path / n))


PUBLISHED = {
    ("base", 1024): ("CLIP ViT-H", "models/image_encoder/model.safetensors", "2,528,373,448 bytes"),
    ("plus", 1664): ("CLIP ViT-bigG", "sdxl_models/image_encoder/model.safetensors", "3,689,912,664 bytes"),
    ("base", 768): ("CLIP ViT-L", "openai/clip-vit-large-patch14", "1,710,540,580 bytes"),
    ("plus", 1024): ("336 px", "Kolors-IP-Adapter-Plus", "1,711,974,081 bytes"),
    ("plus", 1152): ("SigLIP", "sigclip_vision_patch14_384.safetensors", "856,505,640 bytes"),
}


@pytest.mark.parametrize(("kind", "features"), PUBLISHED)
def test_refusals_name_the_file_to_get(kind: str, features: int, tmp_path: Path) -> None:
    name, file, size = PUBLISHED[(kind, features)]
    words = naming("adapter.bin", name, file, size, "models/clip_vision")
    with pytest.raises(ValueError, match=words) as refused:
        choose_encoder(_adapter(kind, features), [], str)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=words):
        check_encoder(_adapter(kind, features), Encoder(24, 64), "other.safetensors")


def _clip(width: int = 1280, embedding: int = 1024) -> dict[str, torch.Tensor]:
    weights = {"visual_projection.weight": torch.zeros(embedding, width), TABLE: torch.zeros(257, width)}
    return {**weights, "vision_model.embeddings.patch_embedding.weight": torch.zeros(width, 3, 1, 1)}


@pytest.mark.parametrize("layout", ["bin", "spread", "folder", "spread bin"])
def test_auto_sees_pickles_folders_and_spread_files(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "image_encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save = torch.save if layout.endswith("bin") else save_file
    ending = "bin" if layout.endswith("bin") else "safetensors"
    if layout.startswith("spread"):
        for i, (key, tensor) in enumerate(_clip().items()):
            save({key: tensor}, folder / f"model-{i + 1:05}-of-00003.{ending}")
    else:
        save(_clip(), folder / f"model.{ending}")
    names = [f"image_encoder/{path.name}" for path in sorted(folder.iterdir())]
    names = ["image_encoder"] if layout == "folder" else names
    found = choose_encoder(_adapter("base", 1024), names, lambda name: str(tmp_path / name))
    assert found == next(name for name in names if not name.endswith(".json"))


def test_a_spread_file_with_a_part_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-00002.safetensors"
    save_file(_clip(), path)
    with pytest.raises(ValueError, match="model-00001-of-00002.*model-00002-of-00002.safetensors are missing"):
        read_spread(path)
    with pytest.raises(ValueError, match="not read by auto"):
        choose_encoder(_adapter("base", 1024), [path.name], lambda name: str(tmp_path / name))


OTHERS = {
    "DINOv2": "encoder.layer.0.layer_scale1.lambda1",
    "DINOv3": "layer.0.mlp.gate_proj.weight",
    "EVA-CLIP": "blocks.0.attn.q_bias",
    "text encoder": "text_model.encoder.layers.0.mlp.fc1.weight",
    "checkpoint": "model.diffusion_model.input_blocks.0.0.weight",
}


@pytest.mark.parametrize("name", OTHERS)
def test_encoders_of_other_families_are_refused_by_name(name: str, tmp_path: Path) -> None:
    other = {OTHERS[name]: torch.zeros(1)}
    encoder = SimpleNamespace(model=SimpleNamespace(state_dict=lambda: other))
    with pytest.raises(ValueError, match=naming("adapter.bin", "CLIP ViT-H", "other.safetensors", name)):
        check_encoder(_adapter("base", 1024), encoder, "other.safetensors")
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=naming("CLIP ViT-H", "other.safetensors", name)):
        choose_encoder(_adapter("base", 1024), ["other.safetensors"], lambda each: str(tmp_path / each))
    check_encoder(_adapter("base", 24), Encoder(), "the encoder")


@pytest.mark.parametrize("kind", ["base", "plus", "full", "face"])
def test_a_projector_for_wider_layers_is_refused(sd15_unet: Any, kind: str) -> None:
    """But of FaceID plus: Kolors projects its tokens once more."""
    weights = random_adapter(sd15_unet, kind)
    narrow = {key: t[:, :8] if "_ip.weight" in key else t for key, t in weights["ip_adapter"].items()}
    with pytest.raises(ValueError, match="adapter.bin.*width 16.*take 8"):
        parse_adapter({**weights, "ip_adapter": narrow}, "adapter.bin")
    norms = {key for key in weights["image_proj"] if key.endswith("norm.weight") or key.endswith("norm_out.weight")}
    cut = {key: t for key, t in weights["image_proj"].items() if key not in {*norms, "proj.3.weight"}}
    with pytest.raises(ValueError, match="adapter.bin.*(incomplete|no known IP-Adapter)"):
        parse_adapter({**weights, "image_proj": cut}, "adapter.bin")
    assert parse_adapter(weights, "adapter.bin").width == 16
