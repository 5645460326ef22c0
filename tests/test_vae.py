"""Images to latents and back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import naming
from tessera.host.models.loaders import load_vae
from tessera.host.models.tiles import feather, three_passes, tile_starts, tiled_scale
from tessera.host.models.vae import VAE
from tessera.host.runtime import devices
from torch import Tensor
from torch.nn import functional as F

Checkpoints = dict[str, tuple[Path, Path]]


@pytest.fixture(scope="module")
def vae(checkpoints: Checkpoints) -> VAE:
    """A VAE of random weights."""
    return load_vae(checkpoints["sd15"][0] / "vae")


def latents(*shape: int) -> Tensor:
    """The same noise at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def test_decoding_is_diffusers_clamped(vae: VAE) -> None:
    z = latents(2, 4, 4, 6)
    images = vae.decode(z)
    with torch.no_grad():
        wanted = vae.first_stage_model.decode(z).sample
    assert images.shape == (2, 32, 48, 3) and images.min() >= 0 and images.max() <= 1
    torch.testing.assert_close(images, ((wanted + 1) / 2).clamp(0, 1).movedim(1, -1))
    assert images.std() > 0.05


def test_encoding_is_the_mean_of_the_posterior(vae: VAE) -> None:
    images = torch.rand(2, 16, 24, 3)
    with torch.no_grad():
        wanted = vae.first_stage_model.encode(images.movedim(-1, 1) * 2 - 1).latent_dist.mean
    torch.testing.assert_close(vae.encode(images), wanted)
    assert torch.equal(vae.encode(images), vae.encode(images))


def test_a_batch_is_its_images(vae: VAE, monkeypatch: pytest.MonkeyPatch) -> None:
    z = latents(4, 4, 3, 3)
    whole = vae.decode(z)
    torch.testing.assert_close(whole, torch.cat([vae.decode(each[None]) for each in z]), atol=1e-4, rtol=0)
    sizes = []
    decode = vae.first_stage_model.decode
    monkeypatch.setattr(vae.first_stage_model, "decode", lambda x: (sizes.append(len(x)), decode(x))[1])
    cost = 2178 * 64 * 9 * 4
    monkeypatch.setattr(devices, "free_memory", lambda device: 3 * cost)
    torch.testing.assert_close(vae.decode(z), whole, atol=1e-4, rtol=0)
    assert sizes == [3, 1]
    monkeypatch.setattr(devices, "free_memory", lambda device: 0)
    vae.decode(z)
    assert sizes[2:] == [1, 1, 1, 1]


def test_a_full_memory_means_tiles(vae: VAE, monkeypatch: pytest.MonkeyPatch) -> None:
    z, wanted = latents(1, 4, 3, 3), vae.decode(latents(1, 4, 3, 3))
    decode, calls = vae.first_stage_model.decode, []

    def full_once(x: Tensor) -> Any:
        calls.append(x)
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError
        return decode(x)

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(vae.first_stage_model, "decode", full_once)
    torch.testing.assert_close(vae.decode(z), wanted)
    assert len(calls) == 4


def test_sides_are_cropped_to_multiples(vae: VAE) -> None:
    images = torch.rand(1, 21, 35, 4)
    assert torch.equal(vae.encode(images), vae.encode(images[:, 2:18, 1:33, :3]))
    with pytest.raises(ValueError, match=naming("7 x 16", 8)):
        vae.encode(torch.rand(1, 16, 7, 3))


@pytest.mark.parametrize("shape", [(1, 16, 4, 4), (1, 4, 4), (1, 4, 1, 4, 4)])
def test_latents_of_another_family(vae: VAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=naming(4, "channels")):
        vae.decode(torch.zeros(shape))


def test_compression(vae: VAE) -> None:
    assert vae.spacial_compression_decode() == vae.spacial_compression_encode() == 8
    assert vae.temporal_compression_decode() is None and vae.latent_channels == 4


def test_patches_of_a_copy_act_and_leave_no_trace(vae: VAE) -> None:
    z = latents(1, 4, 3, 3)
    before = vae.decode(z)
    other = copy.copy(vae)
    other.patcher = vae.patcher.clone()
    other.patcher.add_object_patch("decoder.conv_act", torch.nn.Tanh())
    assert not torch.allclose(other.decode(z), before)
    assert torch.equal(vae.decode(z), before)


class Failing(torch.nn.Module):
    """Stops a run in its middle."""

    def forward(self, x: Tensor) -> Tensor:
        """Fail."""
        raise ZeroDivisionError


def test_an_error_leaves_no_patch(vae: VAE) -> None:
    other = copy.copy(vae)
    other.patcher = vae.patcher.clone()
    other.patcher.add_object_patch("decoder.conv_act", Failing())
    z = latents(1, 4, 3, 3)
    before = vae.decode(z)
    with pytest.raises(ZeroDivisionError):
        other.decode(z)
    assert torch.equal(vae.decode(z), before)


# Tiles


def upscale(x: Tensor) -> Tensor:
    """A function without borders, whose tiles fit exactly."""
    return F.interpolate(x, scale_factor=4, mode="nearest").mean(1, keepdim=True)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 20), st.integers(4, 20), st.integers(0, 3))
def test_tiles_of_a_local_function_are_the_whole(height: int, width: int, x: int, y: int, overlap: int) -> None:
    samples = torch.rand(2, 3, height, width)
    torch.testing.assert_close(tiled_scale(samples, upscale, x, y, overlap, 4, 1), upscale(samples))


@given(st.integers(1, 200), st.integers(2, 50), st.integers(0, 30))
def test_tiles_cover_and_overlap(length: int, tile: int, overlap: int) -> None:
    overlap = min(overlap, tile - 1)
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0 and starts[-1] + tile >= length
    assert all(b - a == tile - overlap for a, b in zip(starts, starts[1:], strict=False))


def test_feather() -> None:
    assert torch.allclose(feather(6, 2), torch.tensor([0.5, 1, 1, 1, 1, 0.5]))
    assert torch.equal(feather(3, 3), torch.ones(3)) and torch.equal(feather(3, 0), torch.ones(3))


def test_tiled_decoding_is_close_in_the_middle_of_tiles(vae: VAE) -> None:
    z = latents(1, 4, 16, 16)
    assert torch.allclose(vae.decode_tiled(z, 32, 32, 4), vae.decode(z), atol=1e-5)
    tiled = vae.decode_tiled(z, 16, 16, 4)
    assert tiled.shape == (1, 128, 128, 3) and (tiled - vae.decode(z)).abs().mean() < 0.2
    encoded = vae.encode_tiled(tiled, 256, 256, 64)
    torch.testing.assert_close(encoded, vae.encode(tiled), atol=1e-4, rtol=1e-4)


def test_too_much_overlap() -> None:
    with pytest.raises(ValueError, match=naming("overlap", 8, "16 x 16")):
        three_passes(torch.zeros(1, 1, 40, 40), upscale, 16, 16, 8, 4, 1)
