"""Wrap Pad and Wrap Crop: there and back is exact, at any scale, and what lies between tiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import naming
from tessera.nodes.wrap import REPEATING, TesseraWrapCrop, TesseraWrapPad
from tessera.tiling import seam
from tessera.tiling.axes import TILINGS
from tessera.tiling.wrap import crop, margins, pad
from torch import Tensor
from torch.nn import functional as F

SHIFTED = ["half_drop", "brick"]

side = st.integers(1, 12)


def _waves(size: int = 48) -> Tensor:
    """A texture (1, size, size, 3) that repeats, with detail."""
    t = torch.arange(size) * 2 * torch.pi / size
    fine = torch.sin(5 * t)[:, None] * torch.cos(7 * t)[None] + 0.5 * torch.sin(t[:, None] + 2 * t[None])
    return (0.5 + 0.3 * fine)[None, ..., None].expand(1, size, size, 3)


def _upscale(images: Tensor, factor: float) -> Tensor:
    """Bicubic, as image nodes do it: it clamps at the border."""
    return F.interpolate(images.movedim(-1, 1), scale_factor=factor, mode="bicubic").movedim(1, -1)


@settings(max_examples=60, deadline=None)
@given(height=side, width=side, padding=st.integers(0, 30), tiling=st.sampled_from(REPEATING))
def test_there_and_back(height: int, width: int, padding: int, tiling: str) -> None:
    height, width = (2 * height, 2 * width) if tiling in SHIFTED else (height, width)
    x = torch.rand(2, 3, height, width)
    geometry = margins((height, width), TILINGS[tiling], padding)
    padded = pad(x, geometry)
    assert padded.shape[-2:] == (height + 2 * geometry.down, width + 2 * geometry.across)
    assert torch.equal(crop(padded, geometry), x)
    torch.testing.assert_close(crop(padded, geometry, blend=1.0), x)
    laid = seam.repeat(x.movedim(1, -1), 2, 2, TILINGS[tiling]).movedim(-1, 1)
    top, left, tall, wide = geometry.down, geometry.across, *laid.shape[-2:]
    continued = padded[..., top : top + tall, left : left + wide]
    assert torch.equal(continued, laid[..., : continued.shape[-2], : continued.shape[-1]])
    if tiling == "both":
        assert torch.equal(padded.roll((-padding, -padding), (-2, -1))[..., :height, :width], x)


@pytest.mark.parametrize("factor", [2.0, 4.0, 0.5])
@pytest.mark.parametrize("blend", [0.0, 0.5])
def test_what_was_scaled_in_between_still_tiles(factor: float, blend: float) -> None:
    texture = _waves()
    padded, geometry, *_ = TesseraWrapPad.execute(16, "both", texture).args
    scaled, *_ = TesseraWrapCrop.execute(geometry, blend, _upscale(padded, factor)).args
    assert scaled.shape == (1, round(48 * factor), round(48 * factor), 3)
    repeated = _upscale(texture.repeat(1, 3, 3, 1), factor)
    size = round(48 * factor)
    torch.testing.assert_close(scaled, repeated[:, size : 2 * size, size : 2 * size])


def test_blending_joins_what_a_node_sees_differently_at_both_edges() -> None:
    """A depth model that adds a ramp over the whole image."""
    padded, geometry, *_ = TesseraWrapPad.execute(16, "both", _waves(96)).args
    ramp = padded + torch.linspace(0, 0.4, padded.shape[2])[:, None]
    (cut,), (blended,) = (seam.measure(TesseraWrapCrop.execute(geometry, blend, ramp).args[0]) for blend in (0.0, 1.0))
    assert cut.horizontal.visible
    assert not blended.horizontal.visible


@pytest.mark.parametrize("tiling", SHIFTED)
@pytest.mark.parametrize("blend", [0.0, 0.5, 1.0])
def test_shifted_repeats_scaled_in_between_still_tile(tiling: str, blend: float) -> None:
    axes, texture = TILINGS[tiling], torch.rand(2, 24, 20, 3, generator=torch.Generator().manual_seed(0))
    padded, geometry, *_ = TesseraWrapPad.execute(16, tiling, texture).args
    scaled = TesseraWrapCrop.execute(geometry, blend, _upscale(padded, 2.0)).args[0]
    many = _upscale(seam.repeat(texture, 5, 5, axes), 2.0)
    torch.testing.assert_close(scaled, many[:, 96:144, 80:120])
    nearest = padded.repeat_interleave(2, 1).repeat_interleave(2, 2)
    back = TesseraWrapCrop.execute(geometry, blend, nearest).args[0]
    torch.testing.assert_close(back, texture.repeat_interleave(2, 1).repeat_interleave(2, 2))


@pytest.mark.parametrize("tiling", SHIFTED)
def test_blending_joins_shifted_repeats(tiling: str) -> None:
    """A drift along the axis whose repeats are shifted."""
    axes = TILINGS[tiling]
    padded, geometry, *_ = TesseraWrapPad.execute(16, tiling, torch.rand(1, 96, 96, 3) * 0.1).args
    drift = torch.linspace(0, 0.8, padded.shape[1])
    drift = padded + (drift if tiling == "half_drop" else drift[:, None])[..., None]
    cut, blended = (seam.measure(TesseraWrapCrop.execute(geometry, b, drift).args[0], axes)[0] for b in (0.0, 1.0))
    edge = "horizontal" if tiling == "half_drop" else "vertical"
    assert getattr(cut, edge).visible
    assert not getattr(blended, edge).visible


@pytest.mark.parametrize("tiling", SHIFTED)
def test_masks_and_latents_of_shifted_repeats_come_back(tiling: str) -> None:
    latent = {"samples": torch.rand(1, 4, 6, 8), "noise_mask": torch.rand(1, 1, 48, 64)}
    mask = torch.rand(1, 24, 32)
    padded = TesseraWrapPad.execute(16, tiling, None, mask, latent).args
    assert padded[3]["samples"].shape == (1, 4, 14, 16)
    assert not torch.equal(padded[2], TesseraWrapPad.execute(16, "both", None, mask).args[2])
    back = TesseraWrapCrop.execute(padded[1], 0.0, None, padded[2], padded[3]).args
    assert torch.equal(back[1], mask)
    assert torch.equal(back[2]["samples"], latent["samples"])
    assert torch.equal(back[2]["noise_mask"], latent["noise_mask"])


def test_masks_and_latents_go_along_in_proportion() -> None:
    latent = {"samples": torch.rand(1, 4, 6, 8), "noise_mask": torch.rand(1, 1, 48, 64), "batch_index": [3]}
    image, mask = torch.rand(1, 48, 64, 3), torch.rand(1, 24, 32)
    padded = TesseraWrapPad.execute(16, "both", image, mask, latent).args
    assert [padded[0].shape, padded[2].shape] == [(1, 80, 96, 3), (1, 40, 48)]
    assert padded[3]["samples"].shape == (1, 4, 10, 12)
    assert padded[3]["noise_mask"].shape == (1, 1, 80, 96)
    back = TesseraWrapCrop.execute(padded[1], 0.0, padded[0], padded[2], padded[3]).args
    assert torch.equal(back[0], image)
    assert torch.equal(back[1], mask)
    assert back[2].keys() == latent.keys()
    assert torch.equal(back[2]["samples"], latent["samples"])
    assert torch.equal(back[2]["noise_mask"], latent["noise_mask"])


def test_a_latent_padded_alone_crops_the_image_decoded_from_it() -> None:
    _, geometry, _, latent = TesseraWrapPad.execute(16, "horizontal", latent={"samples": torch.rand(1, 4, 6, 8)}).args
    assert latent["samples"].shape == (1, 4, 6, 12)
    assert TesseraWrapCrop.execute(geometry, 0.0, torch.rand(1, 48, 96, 3)).args[0].shape == (1, 48, 64, 3)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda: TesseraWrapPad.execute(8, "both"), "Nothing is connected"),
        (lambda: TesseraWrapPad.execute(4, "both", latent={"samples": torch.rand(1, 4, 6, 8)}), "multiple of 8"),
        (lambda: TesseraWrapPad.execute(3, "both", torch.rand(1, 8, 8, 3), torch.rand(1, 4, 4)), naming("padding", 3)),
        (lambda: TesseraWrapPad.execute(8, "brick", torch.rand(1, 8, 9, 3)), naming("width", 9, 8, 10)),
        (
            lambda: TesseraWrapPad.execute(8, "half_drop", latent={"samples": torch.rand(1, 4, 5, 8)}),
            naming("height", 16, 40, 32, 48),
        ),
        (
            lambda: TesseraWrapCrop.execute(margins((6, 6), TILINGS["brick"], 2), 0.0, torch.rand(1, 5, 5, 3)),
            naming("width", 2, 3),
        ),
    ],
)
def test_bad_input(run: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run()


def test_a_scale_that_tears_the_period_is_refused() -> None:
    geometry = margins((48, 48), TILINGS["both"], 16)
    with pytest.raises(ValueError, match=naming("99 x 99", "59.40 x 59.40", "80 x 80")):
        TesseraWrapCrop.execute(geometry, 0.0, torch.rand(1, 99, 99, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 4])
def test_dtypes_channels_and_one_pixel(dtype: torch.dtype, channels: int) -> None:
    image = torch.rand(2, 1, 1, channels).to(dtype)
    padded, geometry, *_ = TesseraWrapPad.execute(5, "both", image).args
    assert padded.shape == (2, 11, 11, channels)
    assert torch.equal(TesseraWrapCrop.execute(geometry, 0.0, padded).args[0], image)


def test_padding_of_a_latent_is_in_pixels_of_its_image() -> None:
    """One latent of Flux.2, which has 128 channels, is 16 px."""
    latent = {"samples": torch.randn(1, 128, 8, 8)}
    padded = TesseraWrapPad.execute(64, "both", latent=latent).args[3]
    assert padded["samples"].shape == (1, 128, 16, 16)
    with pytest.raises(ValueError, match="16"):
        TesseraWrapPad.execute(8, "both", latent=latent)
