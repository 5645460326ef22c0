"""Previews while a model denoises: small images whose colours are those of the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tessera.contract.demo import demo_checkpoint
from tessera.demo.training.textures import draw
from tessera.host.models.latent_formats import SD15, SDXL, Flux, LatentFormat
from tessera.host.nodes.custom_sampling import progress_callback
from tessera.host.progress import set_progress_bar_global_hook
from tessera.host.sampling import latent_preview
from torch.nn import functional as F


@pytest.fixture(autouse=True)
def shown() -> Iterator[None]:
    """Previews are shown, and not by the next test."""
    latent_preview.choose("auto")
    yield
    latent_preview.choose()
    set_progress_bar_global_hook(None)


def pixels(x0: torch.Tensor, latent_format: LatentFormat) -> np.ndarray:
    """A preview as (H, W, 3) in 0..1."""
    made = latent_preview.preview(x0, latent_format)
    assert made is not None
    kind, image, longest = made
    assert (kind, longest) == ("JPEG", 512)
    return np.asarray(image) / 255


@pytest.mark.parametrize(("name", "family"), [("texture-sd", SD15()), ("texture-flux", Flux())])
def test_preview_of_a_demo_model_has_the_colours_of_the_image(name: str, family: LatentFormat) -> None:
    model, _, vae = demo_checkpoint(name)
    inner: Any = model.model
    rng = np.random.default_rng(0)
    images = [draw(rng, "stripes", ("red", "white"), 128), draw(rng, "dots", ("teal", "yellow"), 128)]
    images = torch.from_numpy(np.stack(images)).float() / 255
    small = F.avg_pool2d(images.movedim(-1, 1), 8).movedim(1, -1).numpy()
    latents = inner.process_latent_in(vae.encode(images)).split(1)

    def likeness(latent_format: LatentFormat) -> float:
        made = np.stack([pixels(latent, latent_format) for latent in latents])
        return float(np.corrcoef(made.ravel(), small.ravel())[0, 1])

    assert likeness(inner.latent_format) > 0.6
    assert likeness(family) < 0.5, "then it needs no colours of its own"


@pytest.mark.parametrize("latent_format", [SD15(), SDXL(), Flux()])
def test_every_family_has_colours_and_shows_the_first_of_a_batch(latent_format: LatentFormat) -> None:
    x0 = torch.randn(2, latent_format.latent_channels, 5, 7, generator=torch.Generator().manual_seed(0))
    made = pixels(x0, latent_format)
    assert made.shape == (5, 7, 3)
    assert made.std() > 0.01
    assert np.array_equal(made, pixels(x0[:1], latent_format))


def test_nothing_is_shown_where_it_is_not_wanted_or_not_known() -> None:
    x0 = torch.zeros(1, 4, 8, 8)
    assert latent_preview.preview(x0, LatentFormat()) is None
    assert latent_preview.preview(torch.zeros(1, 5, 8, 8), SD15()) is None
    methods: dict[Any, bool] = {"latent2rgb": True, "taesd": True, "auto": True}
    for method in ("none", *methods, "default", None, "unheard of", 7):
        latent_preview.choose(method)
        assert (latent_preview.preview(x0, SD15()) is not None) == methods.get(method, False)


def test_every_step_brings_a_preview() -> None:
    seen: list[Any] = []
    set_progress_bar_global_hook(lambda value, total, preview: seen.append((value, total, preview is not None)))
    model, _, _ = demo_checkpoint("texture-sd")
    callback = progress_callback(model, 2)  # pyright: ignore[reportArgumentType]
    for step in range(2):
        callback(step, torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 4, 4), 2)
    assert seen == [(1, 2, True), (2, 2, True)]
