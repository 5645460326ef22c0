"""The seamless VAE: exact on the torus, tiled work wraps the grid of tiles, and the plain VAE never notices."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from margins import within
from naming import naming
from tessera.host.models.vae import VAE
from tessera.tiling import seam
from tessera.tiling.axes import TILINGS, Axes
from tessera.tiling.vae import seamless_vae
from torch import Tensor, nn

WRAPPING = ["both", "horizontal", "vertical"]


@pytest.fixture
def vae(autoencoder: Any) -> VAE:
    return VAE(autoencoder)


@pytest.fixture
def latent() -> Tensor:
    return torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 48, 64, 3, generator=torch.Generator().manual_seed(1))


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def _rolled(axes: Axes, unit: int) -> tuple[int, int]:
    return 2 * unit * axes.vertical, 3 * unit * axes.horizontal


@pytest.mark.parametrize("tiling", WRAPPING)
def test_decoding_and_encoding_commute_with_rolling(vae: VAE, latent: Tensor, image: Tensor, tiling: str) -> None:
    axes = TILINGS[tiling]
    seamless = seamless_vae(vae, axes)
    coarse, fine = _rolled(axes, 1), _rolled(axes, 8)
    decoded, encoded = seamless.decode(latent).roll(fine, (1, 2)), seamless.encode(image).roll(coarse, (2, 3))
    assert within(_distance(seamless.decode(latent.roll(coarse, (2, 3))), decoded), 1e-5)
    assert within(_distance(seamless.encode(image.roll(fine, (1, 2))), encoded), 1e-5)


def test_the_plain_vae_is_left_as_it_was(vae: VAE, latent: Tensor, image: Tensor) -> None:
    decoded, encoded, keys = vae.decode(latent), vae.encode(image), set(vae.__dict__)
    seamless = seamless_vae(vae, TILINGS["both"])
    assert _distance(seamless.decode(latent), decoded) > 0.05
    assert _distance(seamless.encode(image), encoded) > 0.05
    assert torch.equal(vae.decode(latent), decoded)
    assert torch.equal(vae.encode(image), encoded)
    assert set(vae.__dict__) == keys
    assert not any("_conv_forward" in layer.__dict__ for layer in vae.first_stage_model.modules())
    assert seamless.first_stage_model.network is vae.first_stage_model


def test_seamless_of_seamless_takes_the_last_word(vae: VAE, latent: Tensor) -> None:
    twice = seamless_vae(seamless_vae(vae, TILINGS["vertical"]), TILINGS["horizontal"])
    assert torch.equal(twice.decode(latent), seamless_vae(vae, TILINGS["horizontal"]).decode(latent))
    assert seamless_vae(twice, TILINGS["off"]) is vae
    assert seamless_vae(vae, TILINGS["off"]) is vae


def test_other_packs_may_copy_it(vae: VAE, latent: Tensor) -> None:
    seamless = seamless_vae(vae, TILINGS["both"])
    expected = seamless.decode(latent)
    assert torch.equal(copy.copy(seamless).decode(latent), expected)
    assert copy.deepcopy(seamless.first_stage_model).axes == TILINGS["both"]
    assert seamless.first_stage_model.config is vae.first_stage_model.config


def _seam_of_waves(decode: Callable[..., Tensor]) -> seam.Seam:
    """Decode, in small tiles, a latent that is one whole wave along both axes."""
    t = torch.arange(20) * 2 * torch.pi / 20
    latent = (torch.sin(t)[:, None] + torch.cos(t)[None, :]).expand(1, 4, 20, 20)
    return seam.measure(decode(latent, tile_x=16, tile_y=16, overlap=4))[0]


def test_tiled_decoding_wraps_the_grid_of_tiles(vae: VAE) -> None:
    plain = _seam_of_waves(vae.decode_tiled)
    wrapped = _seam_of_waves(seamless_vae(vae, TILINGS["both"]).decode_tiled)
    for before, after in ((plain.horizontal, wrapped.horizontal), (plain.vertical, wrapped.vertical)):
        assert before.sr > 2
        assert after.sr < 1.5
        assert before.cr > 3
        assert after.cr < 1.5


def test_tiles_use_plain_convolutions(vae: VAE, latent: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    hooked, network = [], vae.first_stage_model
    original = network.decode

    def decode(samples: Tensor) -> SimpleNamespace:
        hooked.append(any("_conv_forward" in layer.__dict__ for layer in network.modules()))
        return original(samples)

    monkeypatch.setattr(network, "decode", decode)
    seamless = seamless_vae(vae, TILINGS["both"])
    assert seamless.decode_tiled(latent, tile_x=6, tile_y=6, overlap=2).shape == (2, 48, 64, 3)
    assert not any(hooked)
    seamless.decode(latent)
    assert hooked[-1]


def test_out_of_memory_falls_back_to_the_wrapped_grid(
    vae: VAE, latent: Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = vae.first_stage_model
    seamless = seamless_vae(vae, TILINGS["both"])
    tiled = seamless.decode_tiled(latent)
    original, calls = network.decode, []

    def decode(samples: Tensor) -> SimpleNamespace:
        calls.append(tuple(samples.shape))
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError
        return original(samples)

    monkeypatch.setattr(network, "decode", decode)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(seamless.decode(latent), tiled)
    assert "tiles" in caplog.text
    assert calls[1] == (1, 4, 12, 16)
    assert not any("_conv_forward" in layer.__dict__ for layer in network.modules())


@pytest.mark.parametrize("tiling", [*WRAPPING, "off"])
def test_tiles_of_any_overlap_keep_the_size(vae: VAE, tiling: str) -> None:
    seamless = seamless_vae(vae, TILINGS[tiling])
    latent, image = torch.randn(1, 4, 5, 3), torch.rand(1, 40, 24, 3)
    for overlap in (0, 1):
        assert seamless.decode_tiled(latent, tile_x=4, tile_y=4, overlap=overlap).shape == (1, 40, 24, 3)
    for overlap in (0, 8):
        assert seamless.encode_tiled(image, tile_x=32, tile_y=32, overlap=overlap).shape == (1, 4, 5, 3)


def test_tiled_encoding_wraps_the_grid_of_tiles(vae: VAE) -> None:
    """Near the border, where plain tiles see zeros, wrapped ones are closer to the exact torus."""
    image = torch.rand(1, 96, 96, 3, generator=torch.Generator().manual_seed(3))
    seamless = seamless_vae(vae, TILINGS["both"])
    exact = seamless.encode(image)
    options = {"tile_x": 64, "tile_y": 64, "overlap": 16}
    ring = torch.ones(12, 12, dtype=torch.bool)
    ring[1:-1, 1:-1] = False
    wrapped, plain = seamless.encode_tiled(image, **options), vae.encode_tiled(image, **options)
    assert _distance(wrapped[..., ring], exact[..., ring]) < _distance(plain[..., ring], exact[..., ring])


def test_an_image_that_would_be_cropped_is_refused_along_wrapping_axes(vae: VAE) -> None:
    image = torch.rand(1, 50, 64, 3)
    with pytest.raises(ValueError, match="64 x 50 px.*multiples of 8 px"):
        seamless_vae(vae, TILINGS["both"]).encode(image)
    assert seamless_vae(vae, TILINGS["horizontal"]).encode(image).shape == (1, 4, 6, 8)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize(
    ("tiling", "size", "words"),
    [
        ("brick", (6, 5), naming("brick", "width", 16, 40, 32, 48)),
        ("half_drop", (1, 6), naming("height", 16, 8)),
    ],
)
def test_a_latent_without_a_middle_is_refused_in_tiles_too(
    vae: VAE, tiling: str, size: tuple[int, int], words: str, tiled: bool
) -> None:
    seamless = seamless_vae(vae, TILINGS[tiling])
    with pytest.raises(ValueError, match=words):
        (seamless.decode_tiled if tiled else seamless.decode)(torch.randn(1, 4, *size))
    doubled = torch.randn(1, 4, 2 * size[0], 2 * size[1])
    assert seamless.decode_tiled(doubled).shape == (1, 16 * size[0], 16 * size[1], 3)


def test_empty_and_video_vaes_are_refused(vae: VAE) -> None:
    with pytest.raises(ValueError, match="empty"):
        seamless_vae(SimpleNamespace(first_stage_model=None), TILINGS["both"])
    video = SimpleNamespace(first_stage_model=nn.Sequential(nn.Conv3d(1, 1, 3)))
    with pytest.raises(ValueError, match="Conv3d"):
        seamless_vae(video, TILINGS["both"])


def test_a_network_that_tiles_by_itself_is_refused(vae: VAE) -> None:
    vars(vae)["handles_tiling"] = True
    assert seamless_vae(vae, TILINGS["off"]) is vae
    with pytest.raises(ValueError, match="tiles of its own"):
        seamless_vae(vae, TILINGS["both"])
