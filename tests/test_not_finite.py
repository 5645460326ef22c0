"""NaN is an error that names where it came from, not a black image."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from naming import naming
from tessera.host import folder_paths
from tessera.host.models import model_base
from tessera.host.models.vae import VAE
from tessera.host.nodes.sampling import ksampler
from tessera.host.nodes.saving import encode_png
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.samplers import SAMPLER_NAMES
from tessera.host.schema import ui
from tessera.host.schema.inputs import FolderType
from tessera.images.encoding import FORMATS, encode

STEPS, BROKEN = 4, 2


def broken_model(unet: Any, value: float) -> ModelPatcher:
    """A model whose predictions are not finite from one call of the model on."""
    model = ModelPatcher(model_base.SD15(unet), "cpu", "cpu")
    calls = iter(range(1000))

    def spoil(arguments: dict[str, Any]) -> torch.Tensor:
        return arguments["denoised"] * (value if next(calls) >= BROKEN else 1.0)

    model.set_model_sampler_post_cfg_function(spoil)
    return model


@pytest.mark.parametrize(("sampler", "value"), [*((name, math.nan) for name in SAMPLER_NAMES), ("euler", math.inf)])
def test_a_sampler_names_the_step(sd15_unet: Any, sampler: str, value: float) -> None:
    prompt = [[torch.ones(1, 7, 16), {}]]
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    with pytest.raises(ValueError, match=r"not finite \(NaN\) at step \d+ of \d+") as raised:
        ksampler(broken_model(sd15_unet, value), 1, STEPS, 4.0, sampler, "normal", prompt, prompt, latent)
    if sampler in ("euler", "dpmpp_2m", "lms"):
        assert f"at step {BROKEN + 1} of {STEPS}" in str(raised.value)


@pytest.mark.parametrize("way", ["decode", "decode_tiled", "encode", "encode_tiled"])
def test_a_vae_names_the_image(autoencoder: Any, way: str) -> None:
    vae = VAE(copy.deepcopy(autoencoder))
    given = torch.rand(3, 4, 8, 8) if way.startswith("decode") else torch.rand(3, 64, 64, 3)
    assert getattr(vae, way)(given).isfinite().all()
    given[1] = math.nan
    with pytest.raises(ValueError, match=naming("VAE", "NaN", "number 2 of 3")):
        getattr(vae, way)(given)


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_file_is_made_of_an_image_that_is_not_finite(file_format: str) -> None:
    image = torch.rand(300, 8, 3)
    image[280, 3, 1] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        encode(image, file_format)


@pytest.mark.parametrize("bits", [8, 16])
def test_no_png_of_more_bits_is_made_of_it_either(bits: int) -> None:
    image = torch.rand(30, 8, 3)
    image[28, 3, 1] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        encode_png(image, bits, {})


def test_a_preview_of_an_image_that_is_not_finite_is_an_error(tmp_path: Any) -> None:
    folder_paths.configure(output_dir=str(tmp_path))
    with pytest.raises(ValueError, match="NaN"):
        ui.ImageSaveHelper.save_images(torch.full((1, 300, 8, 3), math.nan), "a", FolderType.output, None)
    assert list(tmp_path.iterdir()) == []
    images = torch.rand(1, 300, 8, 3) * 1.4 - 0.2
    (levels,) = (ui._to_pil(image) for image in images)
    assert levels.tobytes() == (255.0 * images[0]).clamp(0, 255).byte().numpy().tobytes()
    folder_paths.configure()
