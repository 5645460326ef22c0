"""Which image encoder goes with an adapter, and adapters whose projector is for another model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tessera.ip_adapter.encoders import check_encoder, choose_encoder
from tessera.ip_adapter.formats import Adapter, parse_adapter
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
    assert choose_encoder(_adapter(kind, features), alone, lambda n: str(tmp_path / n)) == alone[0]


def test_auto_says_that_it_does_not_read_pickles(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "vit.bin")
    with pytest.raises(ValueError, match="vit.bin .not read by auto; choose it in clip_vision"):
        choose_encoder(_adapter("base", 1024), ["vit.bin"], lambda name: str(tmp_path / name))


def test_encoders_of_other_families_are_refused_in_a_line() -> None:
    dino = SimpleNamespace(model=SimpleNamespace(state_dict=lambda: {"embeddings.cls_token": torch.zeros(1)}))
    with pytest.raises(ValueError, match="adapter.bin needs CLIP ViT-H.*dino.safetensors.*CLIP.*SigLIP"):
        check_encoder(_adapter("base", 1024), dino, "dino.safetensors")
    check_encoder(_adapter("base", 24), Encoder(), "the encoder")


@pytest.mark.parametrize("kind", ["base", "plus", "full", "face", "face_plus"])
def test_a_projector_for_wider_layers_is_refused(sd15_unet: Any, kind: str) -> None:
    """Kolors' layers take text that its UNet has projected from 4096 to 2048; FaceID's projector makes 4096."""
    weights = random_adapter(sd15_unet, kind)
    narrow = {key: t[:, :8] if "_ip.weight" in key else t for key, t in weights["ip_adapter"].items()}
    with pytest.raises(ValueError, match="adapter.bin.*width 16.*take 8"):
        parse_adapter({**weights, "ip_adapter": narrow}, "adapter.bin")
    norms = {key for key in weights["image_proj"] if key.endswith("norm.weight") or key.endswith("norm_out.weight")}
    cut = {key: t for key, t in weights["image_proj"].items() if key not in {*norms, "proj.3.weight"}}
    with pytest.raises(ValueError, match="adapter.bin.*(incomplete|no known IP-Adapter)"):
        parse_adapter({**weights, "image_proj": cut}, "adapter.bin")
    assert parse_adapter(weights, "adapter.bin").width == 16
