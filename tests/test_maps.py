"""Maps: they repeat as their texture does, heights and normals undo each other, formulas have their known values."""

from __future__ import annotations

import math
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from margins import within
from naming import naming
from PIL import Image
from tessera.images.encoding import encode
from tessera.nodes.maps import TesseraAmbientOcclusion, TesseraHeightToNormal, TesseraNormalToHeight
from tessera.tiling import maps
from tessera.tiling.axes import REPEATS
from tessera.tiling.seam import measure
from tessera.tiling.seam import repeat as lay_out
from torch import Tensor

FLAT = torch.tensor([0.5, 0.5, 1.0])

sides = st.integers(3, 40)
shifts = st.integers(-40, 40)


def noise(height: int, width: int, seed: int = 0, cut: float = 0.4) -> Tensor:
    """(2, H, W), 0..1: periodic noise without the frequencies above `cut` cycles a px."""
    spectrum = torch.fft.fft2(torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed)).double())
    low = (torch.fft.fftfreq(height).abs() < cut)[:, None] & (torch.fft.fftfreq(width).abs() < cut)
    field = torch.fft.ifft2(spectrum * low).real
    lowest, highest = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return ((field - lowest) / (highest - lowest)).float()


def as_image(values: Tensor) -> Tensor:
    return values[..., None].repeat(1, 1, 1, 3)


@pytest.mark.parametrize("relief", [0.5, 8.0, 200.0])
@pytest.mark.parametrize("size", [(64, 64), (63, 65), (96, 40)])
def test_heights_come_back_from_their_normals(size: tuple[int, int], relief: float) -> None:
    height = noise(*size)
    found, measured = maps.heights(maps.normals(height, relief))
    torch.testing.assert_close(found, height, atol=1e-5, rtol=0)
    torch.testing.assert_close(measured, torch.full((2,), relief).double(), atol=0, rtol=1e-5)


def test_normals_come_back_through_the_nodes() -> None:
    """One strength serves a batch whose images are not equally deep."""
    batch = as_image(torch.stack([noise(48, 32)[0], noise(48, 32)[1] * 0.3 + 0.2]))
    for green in ("OpenGL", "DirectX"):
        normal = TesseraHeightToNormal.execute(batch, 12.0, green).args[0]
        height, strength = TesseraNormalToHeight.execute(normal, green).args
        again = TesseraHeightToNormal.execute(height, strength, green).args[0]
        torch.testing.assert_close(again, normal, atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(sides, sides, shifts, shifts)
def test_rolling_the_texture_rolls_its_maps(height: int, width: int, down: int, right: int) -> None:
    texture = torch.rand(2, height, width, 3, generator=torch.Generator().manual_seed(height * width))
    normal = texture * torch.tensor([1.0, 1.0, 0.4]) + torch.tensor([0.0, 0.0, 0.6])
    for image, compute in (
        (texture, lambda x: TesseraHeightToNormal.execute(x, 8.0, "OpenGL").args[0]),
        (normal, lambda x: TesseraNormalToHeight.execute(x, "OpenGL").args[0]),
        (texture, lambda x: TesseraAmbientOcclusion.execute(x, 8.0, 6).args[0]),
    ):
        rolled = compute(image.roll((down, right), (1, 2)))
        torch.testing.assert_close(rolled, compute(image).roll((down, right), (1, 2)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("repeat", ["half_drop", "brick"])
def test_maps_of_shifted_repeats_are_cut_from_maps_of_many(repeat: str) -> None:
    """Far from the outer border a texture laid out many times has the map that the texture has by itself."""
    height = as_image(noise(32, 24, cut=0.2))
    normal = TesseraHeightToNormal.execute(height, 8.0, "OpenGL", repeat).args[0]
    for image, compute in (
        (height, lambda x, how: TesseraHeightToNormal.execute(x, 8.0, "OpenGL", how).args[0]),
        (normal, lambda x, how: TesseraNormalToHeight.execute(x, "OpenGL", how).args[0]),
        (height, lambda x, how: TesseraAmbientOcclusion.execute(x, 8.0, 6, how).args[0]),
    ):
        many = compute(lay_out(image, 4, 4, REPEATS[repeat]), "straight")
        torch.testing.assert_close(compute(image, repeat), many[:, 64:96, 48:72], atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_the_normals_of_a_ramp_along_the_other_axis_are_even(axis: str) -> None:
    """Black to white over 64 px, 8 px deep: its slope is 8 / 63 up to the ends."""
    ramp = torch.linspace(1, 0, 64)[:, None].expand(64, 48)
    ramp = ramp if axis == "horizontal" else ramp.T
    normal = TesseraHeightToNormal.execute(as_image(ramp[None]), 8.0, "DirectX", axis).args[0]
    across, along = (0, 1) if axis == "horizontal" else (1, 0)
    steep = 8 / 63 / math.hypot(1, 8 / 63) / 2 + 0.5
    assert round(steep, 3) == 0.563
    torch.testing.assert_close(normal[..., along], torch.full(normal.shape[:3], steep))
    torch.testing.assert_close(normal[..., across], torch.full(normal.shape[:3], 0.5))
    height, strength = TesseraNormalToHeight.execute(normal, "DirectX", axis).args
    torch.testing.assert_close(height, as_image(ramp[None]), atol=1e-5, rtol=0)
    assert strength == pytest.approx(8.0, rel=1e-5)


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
@pytest.mark.parametrize("size", [(40, 33), (33, 40), (1, 8), (8, 1), (2, 5)])
def test_heights_of_a_frieze_come_back_from_their_normals(axis: str, size: tuple[int, int]) -> None:
    """A cut of noise whose edges do not meet along one axis."""
    tall, wide = (64, size[1]) if axis == "horizontal" else (size[0], 64)
    height = noise(tall, wide)[:, : size[0], : size[1]]
    lowest, highest = height.amin((1, 2), keepdim=True), height.amax((1, 2), keepdim=True)
    height = (height - lowest) / (highest - lowest)
    found, relief = maps.heights(maps.normals(height, 8.0, axes=REPEATS[axis]), axes=REPEATS[axis])
    torch.testing.assert_close(found, height, atol=1e-5, rtol=0)
    torch.testing.assert_close(relief, torch.full((2,), 8.0).double(), atol=0, rtol=1e-5)


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_maps_of_a_frieze_are_cut_from_maps_of_many_and_see_nothing_beyond_its_end(axis: str) -> None:
    across = axis == "horizontal"
    frieze = as_image(noise(64, 24)[:, :32] if across else noise(24, 64)[:, :, :32])
    normal = TesseraHeightToNormal.execute(frieze, 8.0, "OpenGL", axis).args[0]
    for image, compute in (
        (frieze, lambda x: TesseraHeightToNormal.execute(x, 8.0, "OpenGL", axis).args[0]),
        (normal, lambda x: TesseraNormalToHeight.execute(x, "OpenGL", axis).args[0]),
        (frieze, lambda x: TesseraAmbientOcclusion.execute(x, 8.0, 40, axis).args[0]),
    ):
        many = compute(image.repeat(1, 1, 3, 1) if across else image.repeat(1, 3, 1, 1))
        cut = many[:, :, 24:48] if across else many[:, 24:48]
        torch.testing.assert_close(compute(image), cut, atol=1e-5, rtol=0)


def test_occlusion_at_the_end_of_a_frieze_is_that_of_ground_that_goes_on_level() -> None:
    surface = noise(64, 24)[:, :32]
    longer = torch.cat((surface[:, :1].expand(-1, 9, -1), surface, surface[:, -1:].expand(-1, 9, -1)), 1)
    found = maps.occlusion(surface, 8.0, 9, REPEATS["horizontal"])
    torch.testing.assert_close(found, maps.occlusion(longer, 8.0, 9)[:, 9:-9])
    assert not torch.allclose(found, maps.occlusion(surface, 8.0, 9))


def test_maps_of_a_texture_that_tiles_have_no_seam() -> None:
    texture = as_image(noise(96, 96, cut=0.1))
    normal = TesseraHeightToNormal.execute(texture, 8.0, "OpenGL").args[0]
    for made in (normal, TesseraNormalToHeight.execute(normal, "OpenGL").args[0]):
        assert not any(s.horizontal.visible or s.vertical.visible for s in measure(made))
    assert not any(
        s.horizontal.visible or s.vertical.visible
        for s in measure(TesseraAmbientOcclusion.execute(texture, 8.0, 8).args[0])
    )


def test_opengl_and_directx_differ_in_green_alone() -> None:
    texture = torch.rand(2, 20, 30, 3)
    one, other = (TesseraHeightToNormal.execute(texture, 4.0, green).args[0] for green in ("OpenGL", "DirectX"))
    assert torch.equal(one[..., [0, 2]], other[..., [0, 2]])
    torch.testing.assert_close(one[..., 1], 1 - other[..., 1], atol=1e-6, rtol=0)
    assert bool((one[..., 1] != other[..., 1]).any())


def test_normals_point_away_from_a_hill() -> None:
    """Left of the top they point left; above it they point up, which is more green in OpenGL."""
    y, x = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
    hill = (1 - torch.hypot(x, y) / 16).clamp(min=0)[None]
    normal = maps.normals(hill, 16.0)[0]
    assert normal[16, 8, 0] < 0.5 < normal[16, 24, 0]
    assert normal[24, 16, 1] < 0.5 < normal[8, 16, 1]
    torch.testing.assert_close(
        normal[16, 24], torch.tensor([math.sqrt(0.5), 0.0, math.sqrt(0.5)]) / 2 + 0.5, atol=0.01, rtol=0
    )


def test_slopes_of_a_wave_are_its_derivative() -> None:
    """Scharr's filter takes sin(w) for w: 0.2 % less at 60 px."""
    t = torch.arange(60).double() * 2 * math.pi / 60
    right, down = maps.slopes(torch.sin(t).expand(1, 24, 60))
    torch.testing.assert_close(right[0, 0], torch.cos(t) * math.sin(2 * math.pi / 60))
    assert within(down.abs().max(), 1e-12)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (6, 6)])
def test_flat_ground(size: tuple[int, int], channels: int) -> None:
    """A constant, a single px included: straight normals, level heights, open sky."""
    flat = torch.full((2, *size, channels), 0.3)
    normal = TesseraHeightToNormal.execute(flat, 8.0, "DirectX").args[0]
    torch.testing.assert_close(normal, FLAT.expand(2, *size, 3))
    assert torch.equal(TesseraAmbientOcclusion.execute(flat, 8.0, 16).args[0], torch.ones(2, *size, 3))
    height, strength = TesseraNormalToHeight.execute(normal, "DirectX").args
    assert torch.equal(height, torch.full((2, *size, 3), 0.5))
    assert strength == 0.0


def test_flat_normals_of_eight_bits_are_flat() -> None:
    """128 of 255 is not the middle; the slope that this feigns cannot repeat."""
    height, strength = TesseraNormalToHeight.execute((FLAT * 255).ceil().expand(1, 32, 32, 3) / 255, "OpenGL").args
    assert torch.equal(height, torch.full((1, 32, 32, 3), 0.5))
    assert strength == 0.0


def test_normals_that_point_down_give_a_steep_slope_and_no_error() -> None:
    height, strength = TesseraNormalToHeight.execute(torch.rand(1, 16, 16, 3), "OpenGL").args
    assert bool(height.isfinite().all())
    assert math.isfinite(strength)


def test_grey_images_are_no_normals() -> None:
    with pytest.raises(ValueError, match=naming("channels", 3, 1)):
        TesseraNormalToHeight.execute(torch.rand(1, 4, 4, 1), "OpenGL")


def test_colours_count_by_their_luminance_and_transparency_does_not() -> None:
    image = torch.rand(2, 5, 6, 4)
    expected = 0.2126 * image[..., 0] + 0.7152 * image[..., 1] + 0.0722 * image[..., 2]
    torch.testing.assert_close(maps.grey(image), expected)
    torch.testing.assert_close(maps.grey(image[..., :1]), image[..., 0])


def test_occlusion_beside_a_wall() -> None:
    """Straight at a wall of height t one px away, 1 / (1 + t^2) of the light arrives; away from it all."""
    ground = torch.zeros(1, 64, 64)
    ground[:, :, 32:] = 1
    light = maps.occlusion(ground, 3.0, 8)[0]
    assert torch.equal(light[:, 8:23], torch.ones(64, 15))
    assert torch.equal(light[:, 33:55], torch.ones(64, 22))
    angles = 2 * math.pi * torch.arange(16) / 16
    rises = [max([0.0, *(3 / math.hypot(x, y) for x, y in maps._ray(float(a), 8) if x > 0)]) for a in angles]
    assert float(light[5, 31]) == pytest.approx(sum(1 / (1 + t * t) for t in rises) / 16, abs=1e-6)


def test_deeper_relief_is_darker() -> None:
    height = noise(32, 32)
    lights = [maps.occlusion(height, relief, 8).mean() for relief in (0.0, 2.0, 8.0, 32.0)]
    assert lights[0] == 1
    assert lights == sorted(lights, reverse=True)
    assert bool((maps.occlusion(height, 8.0, 8) <= maps.occlusion(height, 8.0, 4) + 1e-6).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    image = torch.rand(1, 8, 8, 3).to(dtype)
    for made in (
        TesseraHeightToNormal.execute(image, 8.0, "OpenGL").args[0],
        TesseraNormalToHeight.execute(image, "OpenGL").args[0],
        TesseraAmbientOcclusion.execute(image, 8.0, 4).args[0],
    ):
        assert made.shape == (1, 8, 8, 3)
        assert bool(made.isfinite().all())


def decoded(file: bytes) -> tuple[np.ndarray[Any, Any], dict[bytes, bytes]]:
    """Levels (H, W, C) and chunks of a PNG that uses filter 2 alone, read as the format's standard says."""
    at, chunks = 8, {}
    while at < len(file):
        (length,), kind = struct.unpack(">I", file[at : at + 4]), file[at + 4 : at + 8]
        data = file[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + data) == struct.unpack(">I", file[at + 8 + length : at + 12 + length])[0]
        chunks[kind] = data
        at += 12 + length
    width, height, depth, colour = struct.unpack(">2I2B", chunks[b"IHDR"][:10])
    assert depth == 16
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert (lines[:, 0] == 2).all()
    levels = np.cumsum(lines[:, 1:], axis=0, dtype=np.uint8).view(">u2")
    return levels.reshape(height, width, {0: 1, 2: 3, 6: 4}[colour]), chunks


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_kept(channels: int) -> None:
    image = torch.rand(9, 7, channels)
    image[0, 0], image[0, 1] = -1.0, 2.0
    file = encode(image, "png16", texts={"prompt": '{"1": 2}'})
    levels, chunks = decoded(file)
    assert np.array_equal(levels, (image.double() * 65535).round().clamp(0, 65535).numpy().astype(np.uint16))
    assert chunks[b"tEXt"] == b'prompt\0{"1": 2}'
    with Image.open(BytesIO(file)) as opened:
        assert opened.info["prompt"] == '{"1": 2}'
        shallow = np.asarray(opened).reshape(9, 7, channels)
    assert np.array_equal(shallow, levels if channels == 1 else levels >> 8)
