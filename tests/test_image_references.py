"""Saved references and reference maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from margins import within
from naming import naming
from safetensors import safe_open
from safetensors.torch import save_file
from tessera.contract.demo import DEMO_ADAPTER
from tessera.host import folder_paths
from tessera.host.models.model_base import SD15, SDXL
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.ksampler import KSampler
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.ip_adapter.saved import encode_reference, load_reference
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tessera.nodes.references import DEMO, TesseraLoadReference, TesseraReferenceMap, TesseraSaveReference
from tiny_adapters import Encoder, plain_image, random_adapter
from torch import Tensor

SHIPPED = DEMO_ADAPTER / "red_zigzag.reference.safetensors"
ACTS: dict[str, Any] = {"scale": 0.9, "type": "full", "start_percent": 0.0, "end_percent": 1.0}


@pytest.fixture
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


def _load(unet: Any, seed: int = 0) -> LoadedAdapter:
    return LoadedAdapter(parse_adapter(random_adapter(unet, "base", seed), f"adapter {seed}"), Encoder())


@pytest.fixture
def saved(model: ModelPatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder_paths, "_output", str(tmp_path))
    loaded = _load(model.model.diffusion_model)
    return Path(TesseraSaveReference.execute(loaded, plain_image(0.3), "references/moss").args[0])


def _sample(model: Any) -> Tensor:
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7))
    text = [[torch.linspace(-1, 1, 77 * 16).view(1, 77, 16), {"pooled_output": torch.ones(1, 16)}]]
    return KSampler(model, 2, "euler", "normal").sample(noise, text, text, 2.0, torch.zeros_like(noise), seed=1)


def _use(model: ModelPatcher, name: str, loaded: LoadedAdapter | None = None, previous: Any = ()) -> Any:
    prompts = TesseraLoadReference.execute(name, **ACTS, previous=previous).args[0]
    return TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded).args[0]


def test_a_saved_reference_acts_like_its_image(model: ModelPatcher, saved: Path) -> None:
    assert saved.name == "moss_00001_.reference.safetensors"
    options = TesseraLoadReference.define_schema().inputs[0].as_dict()["options"]
    name = "references/moss_00001_.reference.safetensors [output]"
    assert options == [DEMO, name]
    loaded = _load(model.model.diffusion_model)
    prompts = (ImagePrompt(plain_image(0.3), 0.9, "full"),)
    direct = _sample(TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded).args[0])
    # The file is in half precision, which rounds by up to 2**-12 of a value.
    assert within((_sample(_use(model, name)) - direct).norm() / direct.norm(), 2**-12)
    assert not torch.allclose(direct, _sample(model), atol=5e-3)
    assert _sample(_use(model, name, loaded, prompts)).shape == direct.shape


def test_the_format_of_files_stays_as_it_is(tmp_path: Path) -> None:
    """What ships was written by the first version."""
    file = tmp_path / "again.reference.safetensors"
    file.write_bytes(encode_reference(load_reference(SHIPPED)))
    with safe_open(SHIPPED, "pt") as first, safe_open(file, "pt") as again:
        assert again.metadata() == first.metadata()
        assert set(first.metadata()) == {"format", "mark", "name", "sites", "width"}
        assert set(again.keys()) == set(first.keys())
        assert all(torch.equal(again.get_tensor(key), first.get_tensor(key)) for key in again.keys())  # noqa: SIM118


def test_references_that_do_not_fit_are_refused(model: ModelPatcher, saved: Path, sdxl_unet: Any) -> None:
    name = f"references/{saved.name} [output]"
    with pytest.raises(ValueError, match=naming("adapter 0", "adapter 1")):
        _use(model, name, _load(model.model.diffusion_model, 1))
    with pytest.raises(ValueError, match=naming("cross-attention layers", 10, 11)):
        _use(ModelPatcher(SDXL(sdxl_unet), "cpu", "cpu"), name)
    with pytest.raises(ValueError, match="texture-sd"):
        _use(model, DEMO)


def test_files_that_are_no_references_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"12")
    save_file({"1.k": torch.ones(1)}, tmp_path / "other.safetensors")
    for name, words in (("cut", "cannot be read; download it again"), ("other", "not a saved reference")):
        with pytest.raises(ValueError, match=words):
            load_reference(tmp_path / f"{name}.safetensors")


def test_a_map_shows_where_a_mask_lets_an_image_act(model: ModelPatcher) -> None:
    left = torch.zeros(128, 128)
    left[:, :64] = 1
    prompts = (ImagePrompt(plain_image(0.3), 0.9, "full", mask=left), ImagePrompt(plain_image(0.8), 0.2, "full"))
    loaded = _load(model.model.diffusion_model)
    applied = TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded).args[0]
    before = _sample(applied)
    text = [[torch.ones(1, 77, 16), {}]]
    maps = TesseraReferenceMap.execute(applied, text, {"samples": before}, 0.5).args[0]
    assert maps.shape == (2, 128, 128, 3)
    assert maps[0, :, :48].mean() > 10 * maps[0, :, 80:].mean()
    assert maps[1, :, 80:].mean() > maps[0, :, 80:].mean()
    assert torch.equal(_sample(applied), before)
    with pytest.raises(ValueError, match="no image prompts"):
        TesseraReferenceMap.execute(model, text, {"samples": before}, 0.5)
