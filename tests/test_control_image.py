"""Control images: what each method draws, that textures keep repeating, and what is said where a network is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from margins import within
from naming import naming
from tessera.host import folder_paths
from tessera.images import auxiliary
from tessera.images.auxiliary import DETECTORS, detected, find_folder
from tessera.images.control_maps import CONTROL_MAPS, control_map
from tessera.nodes.control_image import TesseraControlImage
from torch import Tensor

METHODS = [*CONTROL_MAPS, "normal"]
FAKE = """
import numpy as np

class HEDdetector:
    def __init__(self, folder):
        self.folder = folder

    @classmethod
    def from_pretrained(cls, folder):
        return cls(folder)

    def to(self, device):
        return self

    def __call__(self, image, detect_resolution, image_resolution, output_type):
        assert image.dtype == np.uint8 and detect_resolution == image_resolution == min(image.shape[:2])
        assert output_type == "np"
        return np.full((64, 64), image.max(), np.uint8)
"""


def image(height: int = 48, width: int = 64, count: int = 1) -> Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(1))


def drawn(image: Tensor, method: str, size: float = 0.0, tiling: str = "off") -> Tensor:
    return TesseraControlImage.execute(image, method, size, tiling).args[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_method_keeps_size_and_range(method: str, channels: int) -> None:
    given = torch.cat([image(count=2), torch.ones(2, 48, 64, 1)], -1)[..., :channels]
    found = drawn(given, method)
    assert found.shape == (2, 48, 64, 3)
    assert float(found.min()) >= 0 and float(found.max()) <= 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (33, 47)])
def test_any_shape_is_drawn(method: str, size: tuple[int, int]) -> None:
    for tiling in ("off", "both"):
        assert drawn(image(*size), method, 0.0, tiling).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("tiling", "axis", "shift"), [("both", 1, 24), ("both", 2, 32), ("horizontal", 2, 16)])
def test_rolling_a_texture_rolls_its_control_image(method: str, tiling: str, axis: int, shift: int) -> None:
    """By whole cells of the methods that have some."""
    size = {"tile": 8.0, "color_grid": 8.0}.get(method, 0.0)
    texture = image()
    found = drawn(texture.roll(shift, axis), method, size, tiling)
    assert within((found - drawn(texture, method, size, tiling).roll(shift, axis)).abs().max(), 1e-5)


@pytest.mark.parametrize("method", ["lines", "soft_edges"])
def test_a_flat_image_has_no_lines(method: str) -> None:
    assert not drawn(torch.full((1, 32, 32, 3), 0.6), method).any()


@pytest.mark.parametrize("method", ["tile", "blur", "color_grid"])
def test_a_flat_image_stays_as_it_is(method: str) -> None:
    flat = torch.full((1, 32, 32, 3), 0.6)
    assert within((drawn(flat, method) - flat).abs().max(), 1e-5)


def test_lines_are_dark_ones_whatever_the_ground_is() -> None:
    page = torch.ones(1, 64, 64, 3)
    page[:, 30:33] = 0.2
    found = drawn(page, "lines")[0, :, 32, 0]
    assert float(found[31]) > 0.4 and float(found[:10].max()) < 0.05
    assert float(drawn(1 - page, "lines")[0, 31].max()) < 0.05


@pytest.mark.parametrize("ground", [(1.0, 0.5, 0.0), (0.2, 0.2, 1.0), (0.4, 0.4, 0.4)])
def test_black_lines_are_drawn_on_every_colour(ground: tuple[float, float, float]) -> None:
    page = torch.tensor(ground).expand(1, 64, 64, 3).clone()
    page[:, 30:33] = 0
    assert float(drawn(page, "lines")[0, 31].min()) > 0.4


def test_soft_edges_are_strongest_at_the_edge_and_fade() -> None:
    step = torch.zeros(1, 64, 64, 3)
    step[:, :, 32:] = 1
    found = drawn(step, "soft_edges")[0, 32, :, 0]
    assert int(found.argmax()) in (31, 32) and float(found.max()) == 1
    assert bool((found[32:44].diff() <= 1e-6).all()) and float(found[50]) < 0.05


def test_the_grid_has_the_mean_colour_of_its_cells() -> None:
    given = image(64, 64)
    found = drawn(given, "color_grid", 16.0)
    torch.testing.assert_close(found[0, 0, 0], given[0, :16, :16].mean((0, 1)))
    assert len(found.reshape(-1, 3).unique(dim=0)) == 16


def test_normals_face_left_in_red_and_up_in_green() -> None:
    slope = torch.linspace(0, 1, 32)
    rising_right = slope[None, None, :, None].expand(1, 32, 32, 3)
    rising_down = rising_right.transpose(1, 2)
    middle = [drawn(each, "normal", 32.0)[0, 16, 16] for each in (rising_right, rising_down)]
    assert float(middle[0][0]) > 0.6 and float(middle[1][1]) > 0.6
    assert float(drawn(torch.ones(1, 8, 8, 3), "normal")[0, 4, 4, 2]) == 1


@pytest.mark.parametrize("method", ["tile", "color_grid"])
def test_cells_smaller_than_a_pixel_change_nothing(method: str) -> None:
    assert torch.equal(drawn(image(), method, 1e-6), image())


def test_larger_sizes_blur_more() -> None:
    left = [float(control_map(image(), "blur", size, (True, True)).std()) for size in (1.0, 3.0, 9.0)]
    assert left == sorted(left, reverse=True)


@pytest.mark.parametrize("method", DETECTORS)
def test_a_missing_package_is_said_in_one_line(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auxiliary, "find_spec", lambda _: None)
    said = TesseraControlImage.validate_inputs(method)
    assert isinstance(said, str) and "controlnet_aux" in said and "install" in said and "\n" not in said
    with pytest.raises(ValueError, match=naming("method", method, "controlnet_aux")):
        drawn(image(), method)


@pytest.mark.parametrize("method", METHODS)
def test_methods_without_a_network_need_nothing(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auxiliary, "find_spec", lambda _: None)
    assert TesseraControlImage.validate_inputs(method) is True


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that stands for controlnet_aux, and its empty folder of models."""
    package = tmp_path / "packages" / "controlnet_aux"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE, encoding="utf-8")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(__import__("sys").modules, "controlnet_aux", raising=False)
    auxiliary._loaded.cache_clear()
    models = tmp_path / "models" / "controlnet_aux"
    models.mkdir(parents=True)
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda _: [str(models)])
    return models


def test_a_missing_file_is_said_in_one_line(installed: Path) -> None:
    (installed / "sk_model.pth").touch()
    for method, names in (("hed", "ControlNetHED.pth"), ("lineart", "sk_model.pth and sk_model2.pth")):
        said = TesseraControlImage.validate_inputs(method)
        assert isinstance(said, str) and names in said and "\n" not in said


def test_a_network_draws_in_the_size_of_the_image(installed: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, installed / "ControlNetHED.pth")
    assert TesseraControlImage.validate_inputs("hed") is True
    given = image(40, 56, count=2)
    found = drawn(given, "hed")
    assert found.shape == given.shape
    expected = (given * 255).round().amax((1, 2, 3)) / 255
    torch.testing.assert_close(found[:, 20, 20, 1], expected)


def test_edges_that_a_network_does_not_join_are_said(installed: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"weight": torch.zeros(2)}, installed / "ControlNetHED.pth")
    drawn(image(), "hed")
    assert not caplog.text
    drawn(image(), "hed", tiling="both")
    assert "hed" in caplog.text and "Wrap Pad" in caplog.text


def test_a_file_with_code_is_refused(installed: Path) -> None:
    torch.save({"weight": Path("moss")}, installed / "ControlNetHED.pth")
    with pytest.raises(ValueError, match=naming("ControlNetHED.pth", "more than tensors")):
        detected(image(), "hed", find_folder("hed", [installed]), torch.device("cpu"))
