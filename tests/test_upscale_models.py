"""Models that enlarge images: tiles against one piece, textures between Wrap Pad and Wrap Crop, and their files."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from naming import naming
from safetensors.torch import save_file
from tessera.host.models.upscale_model import UpscaleModel, load_upscale_model
from tessera.host.nodes import upscale
from tessera.host.nodes.upscale import NODES, ImageUpscaleWithModel
from tessera.nodes.wrap import TesseraWrapCrop, TesseraWrapPad
from torch import Tensor, nn


class Twice(nn.Module):
    """Stands for a network of spandrel: a blur that wraps nothing, at twice the size."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.blur(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.fixture
def model() -> UpscaleModel:
    torch.manual_seed(0)
    network = Twice().requires_grad_(False)
    descriptor = SimpleNamespace(model=network, scale=2)
    made = UpscaleModel(descriptor)
    made.descriptor = network
    return made


def random_image(height: int = 40, width: int = 56, count: int = 2) -> Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(1))


def enlarged(model: UpscaleModel, image: Tensor) -> Tensor:
    (out,) = ImageUpscaleWithModel.execute(model, image).args
    assert isinstance(out, Tensor)
    return out


def test_images_are_enlarged_and_stay_in_range(model: UpscaleModel) -> None:
    out = enlarged(model, random_image())
    assert out.shape == (2, 80, 112, 3)
    expected = model(random_image().movedim(-1, 1)).clamp(0, 1).movedim(1, -1)
    assert torch.allclose(out, expected, atol=1e-6)
    assert out.min() >= 0
    assert out.max() <= 1


def test_tiles_give_the_image_in_one_piece(model: UpscaleModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = enlarged(model, random_image())
    monkeypatch.setattr(upscale, "TILE", 24)
    monkeypatch.setattr(upscale, "OVERLAP", 8)
    seen: list[torch.Size] = []
    hook = model.descriptor.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    tiled = enlarged(model, random_image())
    hook.remove()
    assert len(seen) == 2 * 2 * 3
    assert max(max(shape[2:]) for shape in seen) <= 24
    # Away from the tiles' own edges, whose weight is small but not nothing.
    assert (tiled - whole).abs().mean() < 5e-3


def test_a_full_memory_makes_smaller_tiles(model: UpscaleModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upscale, "SMALLEST_TILE", 16)
    monkeypatch.setattr(upscale, "TILE", 64)
    monkeypatch.setattr(upscale, "OVERLAP", 8)
    network = model.descriptor

    def small_only(x: Tensor) -> Tensor:
        if x.shape[-1] > 32:
            raise torch.cuda.OutOfMemoryError
        return network(x)

    model.descriptor = small_only
    assert enlarged(model, random_image()).shape == (2, 80, 112, 3)
    monkeypatch.setattr(upscale, "SMALLEST_TILE", 48)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        enlarged(model, random_image())
    assert not model.patcher.patched_by


def test_tiles_of_a_texture_stay_tiles_between_wrap_pad_and_crop(model: UpscaleModel) -> None:
    def through(image: Tensor) -> Tensor:
        padded, geometry = TesseraWrapPad.execute(8, "both", image=image).args[:2]
        assert isinstance(padded, Tensor)
        cropped = TesseraWrapCrop.execute(geometry, 0.0, image=enlarged(model, padded)).args[0]
        assert isinstance(cropped, Tensor)
        return cropped

    moved, shift = random_image().roll((3, 5), (1, 2)), (6, 10)
    assert torch.allclose(through(moved), through(random_image()).roll(shift, (1, 2)), atol=1e-5)
    assert not torch.allclose(enlarged(model, moved), enlarged(model, random_image()).roll(shift, (1, 2)), atol=1e-3)


def test_without_spandrel_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ModuleNotFoundError, match=r'spandrel is not installed.*pip install "tessera-nodes\[upscale\]"'):
        load_upscale_model(tmp_path / "x.pth")


def esrgan(**options: Any) -> dict[str, Tensor]:
    spandrel = pytest.importorskip("spandrel.architectures.ESRGAN.__arch.RRDB", exc_type=ImportError)
    torch.manual_seed(0)
    return spandrel.RRDBNet(num_filters=8, num_blocks=1, scale=2, **options).state_dict()


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "nested.pth"])
def test_files_are_loaded(tmp_path: Path, name: str) -> None:
    weights = esrgan()
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path)
    else:
        torch.save({"params_ema": weights} if name.startswith("nested") else weights, path)
    loaded = load_upscale_model(path)
    assert loaded.scale == 2
    assert enlarged(loaded, random_image(16, 16, 1)).shape == (1, 32, 32, 3)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    weights = esrgan()
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=naming("other.safetensors", "spandrel")):
        load_upscale_model(tmp_path / "other.safetensors")
    code = tmp_path / "code.pth"
    code.write_bytes(pickle.dumps(print))
    with pytest.raises(ValueError, match="refused|no readable pickle"):
        load_upscale_model(code)
    grey = {key: tensor[:, :1] if key == "model.0.weight" else tensor for key, tensor in weights.items()}
    torch.save(grey, tmp_path / "grey.pth")
    with pytest.raises(ValueError, match=naming("grey.pth", "expected")):
        load_upscale_model(tmp_path / "grey.pth")


@pytest.mark.parametrize("node", NODES)
def test_nodes_explain_themselves(node: Any) -> None:
    schema = node.define_schema()
    assert schema.description.endswith(".")
    assert all(slot.tooltip and slot.tooltip.endswith(".") for slot in [*schema.inputs, *schema.outputs])
