"""The safety filter, with a small random checker whose one concept is made to flag one image and not the other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from tessera.host import folder_paths
from tessera.images.safety import COVERS, covered, unsafe
from tessera.nodes.safety import TesseraSafetyFilter
from torch import Tensor
from transformers import CLIPConfig

try:
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor
except ImportError:
    from transformers import CLIPImageProcessor

SIDE = 32
LAYERS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}


def images() -> Tensor:
    """Stripes, then noise, which stand for what is unsafe and what is not."""
    stripes = (torch.arange(48) // 6 % 2).float()[None, :, None].expand(40, 48, 3)
    noise = torch.rand(40, 48, 3, generator=torch.Generator().manual_seed(3))
    return torch.stack([stripes, noise])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    torch.manual_seed(0)
    vision = {**LAYERS, "image_size": SIDE, "patch_size": 8}
    text = {**LAYERS, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1}
    checker: Any = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16))
    prepare = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    bytes_ = list((255 * images()).round().byte().numpy())
    with torch.no_grad():
        seen = checker.visual_projection(checker.vision_model(prepare(bytes_, return_tensors="pt").pixel_values)[1])
    # Each concept is the stripes' own direction; half way to the noise is the threshold.
    seen = torch.nn.functional.normalize(seen)
    checker.concept_embeds.data[:] = seen[0]
    checker.concept_embeds_weights.data[:] = (1 + float(seen[0] @ seen[1])) / 2
    checker.special_care_embeds_weights.data[:] = 2.0
    path = tmp_path_factory.mktemp("models") / "models" / "safety_checker" / "tiny"
    checker.save_pretrained(path)
    prepare.save_pretrained(path)
    folder_paths.configure(str(path.parents[1]))
    yield path
    folder_paths.configure()


def filtered(images: Tensor, method: str) -> tuple[Tensor, str]:
    shown, report = TesseraSafetyFilter.execute(images, "tiny", method).args
    assert isinstance(shown, Tensor)
    return shown, str(report)


@pytest.mark.parametrize("method", COVERS)
def test_flagged_images_are_hidden_and_others_stay(folder: Path, method: str) -> None:
    shown, report = filtered(images(), method)
    assert report == "Flagged: 1 of 2."
    assert torch.equal(shown[1], images()[1])
    assert shown.shape == images().shape
    assert (shown[0] - images()[0]).abs().max() > 0.2
    assert shown.min() >= 0
    assert shown.max() <= 1


@pytest.mark.usefixtures("folder")
def test_transparency_stays_where_an_image_is_not_hidden() -> None:
    clear = torch.cat((images(), torch.rand(2, 40, 48, 1)), -1)
    shown, _ = filtered(clear, "black")
    assert torch.equal(shown[1], clear[1])
    assert not shown[0, ..., :3].any()
    assert shown[0, ..., 3].eq(1).all()


@pytest.mark.usefixtures("folder")
def test_grey_images_are_checked_as_well() -> None:
    shown, report = filtered(images()[..., :1], "black")
    assert report.startswith("Flagged: 1")
    assert shown.shape == images().shape
    assert not shown[0].any()


@pytest.mark.usefixtures("folder")
def test_a_report_changes_nothing() -> None:
    shown, report = filtered(images(), "report")
    assert torch.equal(shown, images())
    assert report == "Flagged: 1 of 2."
    shown, report = filtered(images()[1:], "black")
    assert torch.equal(shown, images()[1:])
    assert report == "Flagged: none of 1."


def test_flags_are_those_of_diffusers(folder: Path) -> None:
    checker: Any = StableDiffusionSafetyChecker.from_pretrained(folder)
    prepare = CLIPImageProcessor.from_pretrained(folder)
    many = torch.cat([images(), torch.rand(6, 40, 48, 3), images().flip(0)])
    pixels = prepare(list((255 * many).round().byte().numpy()), return_tensors="pt").pixel_values
    expected = checker(pixels, [torch.ones(1) for _ in many])[1]
    assert unsafe(folder, many) == expected
    assert True in expected
    assert False in expected


@pytest.mark.usefixtures("folder")
def test_a_file_in_the_folder_stands_for_it() -> None:
    shown, _ = TesseraSafetyFilter.execute(images(), "tiny/model.safetensors", "black").args
    assert isinstance(shown, Tensor)
    assert not shown[0].any()


@pytest.mark.parametrize("size", [(48, 64), (5, 7), (200, 30)])
def test_little_is_left_of_a_hidden_image(size: tuple[int, int]) -> None:
    image = torch.rand(3, *size)
    assert not covered(image, "black").any()
    cells = covered(image, "pixelate")
    assert len(cells.flatten(1).unique(dim=1).T) <= 9 * 9 * max(size) / min(size)
    assert covered(image, "text").amax() > 0.5
    assert all(covered(image, method).shape == image.shape for method in COVERS)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_broken_downloads_are_named(folder: Path, tmp_path: Path, name: str) -> None:
    copied = tmp_path / "checker"
    shutil.copytree(folder, copied)
    (copied / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=rf"{name} cannot be read; download it again .found a Git LFS pointer"):
        unsafe(copied, images())


def test_folders_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"expected config.json, model.safetensors and") as caught:
        unsafe(tmp_path, images())
    assert "\n" not in str(caught.value)
