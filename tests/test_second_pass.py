"""Second Pass: what it enlarges, what it samples, and that textures still repeat."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from margins import within
from naming import naming
from tessera.host.models.model_base import SD15
from tessera.host.nodes.custom_sampling import BasicScheduler
from tessera.host.nodes.sampling import ksampler
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.samplers import SAMPLER_NAMES, sampler_object
from tessera.host.sampling.schedules import SCHEDULER_NAMES
from tessera.images.enlarging import enlarged, resized
from tessera.nodes.second_pass import SAMPLERS, SCHEDULERS, TesseraSecondPass
from torch import Tensor

Latent = dict[str, Any]


class Halves:
    """A VAE of factor 8 whose image is its first three channels, each latent a cell."""

    def decode(self, samples: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(samples[:, :3], scale_factor=8, mode="nearest").movedim(1, -1)

    def encode(self, pixel_samples: Tensor) -> Tensor:
        cells = torch.nn.functional.avg_pool2d(pixel_samples.movedim(-1, 1), 8)
        return torch.cat([cells, cells[:, :1]], 1)

    def spacial_compression_encode(self) -> int:
        return 8


@pytest.fixture
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


TEXT, NEGATIVE = ([[torch.full((1, 77, 16), value), {}]] for value in (1.0, -1.0))


def _latent(height: int = 8, width: int = 8, count: int = 1) -> Latent:
    return {"samples": torch.rand(count, 4, height, width, generator=torch.Generator().manual_seed(4))}


def _passed(model: Any, latent: Latent, factor: float = 1.5, **given: Any) -> tuple[Latent, Any]:
    settings: dict[str, Any] = {"denoise": 0.5, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal"}
    made = TesseraSecondPass.execute(model, TEXT, NEGATIVE, latent, 7, factor, **{**settings, **given})
    return made.args[0], made.args[1]


@pytest.mark.parametrize("name", SAMPLERS)
def test_without_an_enlargement_it_is_ksampler(model: ModelPatcher, name: str) -> None:
    found, image = _passed(model, _latent(), 1.0, sampler_name=name, steps=3)
    expected = ksampler(model, 7, 3, 2.0, name, "normal", TEXT, NEGATIVE, _latent(), denoise=0.5).args[0]
    assert torch.equal(found["samples"], expected["samples"]) and image is None


def test_its_lists_are_names_of_the_host() -> None:
    assert set(SAMPLERS) < set(SAMPLER_NAMES) and set(SCHEDULERS) <= set(SCHEDULER_NAMES)


@pytest.mark.parametrize(("factor", "size"), [(1.5, (12, 18)), (1.3, (10, 16)), (2.0, (16, 24))])
def test_the_size_is_in_whole_latents(model: ModelPatcher, factor: float, size: tuple[int, int]) -> None:
    assert _passed(model, _latent(8, 12), factor)[0]["samples"].shape == (1, 4, *size)
    made, image = _passed(model, _latent(8, 12), factor, vae=Halves())
    assert made["samples"].shape == (1, 4, *size) and image.shape == (1, 8 * size[0], 8 * size[1], 3)


def test_nothing_to_denoise_leaves_the_enlargement(model: ModelPatcher) -> None:
    found = _passed(model, _latent(), denoise=0.0)[0]["samples"]
    torch.testing.assert_close(found, enlarged(_latent(), 1.5)["samples"])


def test_sampler_and_sigmas_that_are_linked_are_used(model: ModelPatcher) -> None:
    sigmas = BasicScheduler.execute(model, "karras", 3, 0.7).args[0]
    linked = _passed(model, _latent(), sampler=sampler_object("heun"), sigmas=sigmas)[0]["samples"]
    typed = _passed(model, _latent(), sampler_name="heun", scheduler="karras", steps=3, denoise=0.7)[0]["samples"]
    assert torch.equal(linked, typed)


def test_other_entries_of_the_latent_are_kept(model: ModelPatcher) -> None:
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    given = _latent() | {"noise_mask": mask, "batch_index": [3]}
    found = _passed(model, given, 2.0)[0]
    assert found["batch_index"] == [3] and torch.equal(found["noise_mask"], mask)
    kept = enlarged(_latent(), 2.0)["samples"]
    torch.testing.assert_close(found["samples"][..., :7], kept[..., :7])
    assert not torch.allclose(found["samples"][..., 9:], kept[..., 9:], atol=1e-2)
    assert torch.equal(given["samples"], _latent()["samples"])


@pytest.mark.parametrize("size", [(12, 20), (11, 13), (24, 4), (8, 10), (40, 5)])
def test_a_texture_is_enlarged_as_the_middle_of_its_repeats(size: tuple[int, int]) -> None:
    texture = torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(5))
    tiled = resized(texture.repeat(1, 1, 3, 3), (3 * size[0], 3 * size[1]))
    middle = tiled[..., size[0] : 2 * size[0], size[1] : 2 * size[1]]
    assert within((resized(texture, size, (True, True)) - middle).abs().max(), 1e-5)


def test_edges_that_do_not_meet_do_not_see_each_other() -> None:
    texture = torch.zeros(1, 1, 8, 8)
    texture[..., -2:] = 1
    assert not resized(texture, (16, 16))[..., :4].any()
    assert resized(texture, (16, 16), (True, False))[..., :1].abs().min() > 0


def test_a_network_sees_the_other_side_of_a_texture() -> None:
    widths: list[int] = []

    def twice(image: Tensor) -> Tensor:
        widths.append(image.shape[2])
        return image.repeat_interleave(2, 1).repeat_interleave(2, 2)

    plain = enlarged(_latent(), 2.0, vae=Halves(), network=twice)["samples"]
    wrapped = enlarged(_latent(), 2.0, (True, True), Halves(), twice)["samples"]
    assert widths == [64, 128]
    torch.testing.assert_close(plain, wrapped)


def test_a_network_without_a_vae_is_refused(model: ModelPatcher) -> None:
    said = TesseraSecondPass.validate_inputs(1.5, upscale_model=None)
    assert isinstance(said, str) and "vae" in said
    assert TesseraSecondPass.validate_inputs(1.5, vae=None, upscale_model=None) is True
    with pytest.raises(ValueError, match=naming("upscale_model", "vae")):
        _passed(model, _latent(), upscale_model=object())


class Frames(Halves):
    """The same VAE, which takes a batch of images for the frames of a video, as Qwen-Image's does in ComfyUI."""

    def decode(self, samples: Tensor) -> Tensor:
        return super().decode(samples[:, :, 0])[:, None]

    def encode(self, pixel_samples: Tensor) -> Tensor:
        return super().encode(pixel_samples).movedim(0, 1)[None]


@pytest.mark.parametrize("vae", [None, Halves()])
def test_images_as_single_frames_are_enlarged_as_images(vae: Any) -> None:
    latent = _latent(8, 12, count=2)
    expected = enlarged(latent, 1.5, (True, True), vae)["samples"]
    framed = {"samples": latent["samples"][:, :, None]}
    found = enlarged(framed, 1.5, (True, True), None if vae is None else Frames())["samples"]
    assert torch.equal(found, expected[:, :, None])


def test_latents_of_a_video_are_refused(model: ModelPatcher) -> None:
    with pytest.raises(ValueError, match=naming("latent_image", "video")):
        _passed(model, {"samples": torch.zeros(1, 4, 2, 8, 8)})
