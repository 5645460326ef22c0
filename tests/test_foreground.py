"""Cutting out: drawn motifs on plain and shaded grounds, edges, colours, masks, and files with transparency."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import naming
from PIL import Image
from tessera.host import folder_paths
from tessera.host.nodes.image import LoadImage, SaveImage
from tessera.host.nodes.transparency import ImageToMask, InvertMask, JoinImageWithAlpha
from tessera.images.foreground import clean_colours, colour_alpha, connected, oklab
from tessera.nodes.cut_out import TesseraCutOut
from tessera.nodes.save import TesseraSaveImage
from torch import Tensor

RED = torch.tensor([0.8, 0.1, 0.2]).view(3, 1, 1)
GREY = torch.full((3, 1, 1), 0.6)
SIDE = 96


def grid(height: int = SIDE, width: int = SIDE) -> tuple[Tensor, Tensor]:
    """(H, W) each: y and x of the pixels' centres."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return y, x


def disc(y: float, x: float, radius: float, blur: float = 1.0) -> Tensor:
    """(H, W): 1 inside, 0 outside, and a straight rise over `blur` px between them."""
    far = ((grid()[0] - y) ** 2 + (grid()[1] - x) ** 2).sqrt()
    return ((radius - far) / blur + 0.5).clamp(0, 1)


def ground(kind: str) -> Tensor:
    """(3, H, W)"""
    y, x = (each / SIDE for each in grid())
    shade = {
        "plain": torch.full_like(x, 0.7),
        "left to right": 0.1 + 0.8 * x,
        "diagonal": 0.2 + 0.35 * (x + y),
        "vignette": 0.95 - 1.2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2),
    }[kind]
    return shade * torch.tensor([0.5, 0.9, 1.0]).view(3, 1, 1)


GROUNDS = ["plain", "left to right", "diagonal", "vignette"]


def painted(alpha: Tensor, below: Tensor, colour: Tensor = RED) -> Tensor:
    return colour * alpha + below * (1 - alpha)


def overlap(one: Tensor, other: Tensor) -> float:
    """Intersection over union of what is at least half there."""
    both, either = (one > 0.5) & (other > 0.5), (one > 0.5) | (other > 0.5)
    return float(both.sum() / either.sum())


def node(
    image: Tensor,
    tolerance: float = 0.1,
    softness: int = 2,
    holes: bool = False,
    mask: Tensor | None = None,
    keep_whole: bool = False,
) -> list[Tensor]:
    output = TesseraCutOut.execute(image, tolerance, softness, holes, mask, keep_whole)
    assert output.result is not None
    return list(output.result)


def as_image(*images: Tensor) -> Tensor:
    """(B, H, W, C) of images (C, H, W)."""
    return torch.stack(images).movedim(1, -1)


@settings(max_examples=30)
@given(
    st.sampled_from(GROUNDS),
    st.integers(30, 66),
    st.integers(30, 66),
    st.floats(8, 26),
    st.floats(0, 0.015),
    st.sampled_from([1.0, 2.0, 3.0]),
)
def test_a_disc_is_found_on_plain_and_shaded_grounds(
    kind: str, y: int, x: int, radius: float, noise: float, blur: float
) -> None:
    wanted = disc(y, x, radius, blur)
    grain = noise * torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(y))
    found = colour_alpha((painted(wanted, ground(kind)) + grain).clamp(0, 1), 0.1, 2, False)
    assert (found[disc(y, x, radius - 4) > 0] == 1).all()
    assert (found[disc(y, x, radius + 4) == 0] == 0).all()
    # Not by which pixels are more than half there: on a small disc's edge many are half there, to the last bit.
    assert (found - wanted).abs().max() < 0.15


@pytest.mark.parametrize("kind", GROUNDS)
def test_a_motif_across_the_border_is_kept(kind: str) -> None:
    wanted = disc(48, 6, 24)
    assert overlap(colour_alpha(painted(wanted, ground(kind)), 0.1, 2, False), wanted) > 0.98


def test_the_commoner_of_two_colours_at_the_border_is_the_background() -> None:
    stripes = (grid()[1] // 8 % 3 == 0).float()
    assert overlap(colour_alpha(painted(stripes, GREY), 0.1, 2, False), stripes) == 1


@pytest.mark.parametrize(("line", "is_background"), [(1, False), (3, True)])
@pytest.mark.parametrize(("height", "width"), [(256, 520), (520, 256)])
def test_a_thin_line_along_the_border_is_not_the_background(
    line: int, is_background: bool, height: int, width: int
) -> None:
    """The frame that is looked at is a 64th of the shorter side deep, 4 px here; most of it decides."""
    y, x = grid(height, width)
    motif = ((y - 128) ** 2 + (x - 128) ** 2 < 40**2).float()
    image = painted(motif, GREY)
    image[:, :line], image[:, -line:], image[..., :line], image[..., -line:] = [0.0] * 4
    inside = (slice(line + 4, -line - 4),) * 2
    found = colour_alpha(image, 0.1, 2, False)[inside]
    assert torch.equal(found > 0.5, torch.ones_like(found) > 0 if is_background else motif[inside] > 0.5)


@settings(max_examples=8)
@given(st.sampled_from(GROUNDS), st.integers(30, 66), st.floats(8, 26))
def test_turned_images_are_cut_alike(kind: str, x: int, radius: float) -> None:
    image = painted(disc(40, x, radius), ground(kind))
    found = colour_alpha(image, 0.1, 2, False)
    # A pixel at the tolerance itself is background or not by its last bit, and moves the fitted colours a little.
    for dims in ([1], [2], [1, 2]):
        turned = colour_alpha(image.flip(dims), 0.1, 2, False)
        assert torch.allclose(turned.flip([dim - 1 for dim in dims]), found, atol=0.02)
    assert torch.allclose(colour_alpha(image.mT, 0.1, 2, False).T, found, atol=0.02)


@settings(max_examples=12)
@given(st.integers(-15, 15), st.integers(-15, 15))
def test_moved_images_are_cut_alike(down: int, right: int) -> None:
    image = painted(disc(48, 48, 20), ground("plain"))
    found = colour_alpha(image, 0.1, 2, False)
    moved = colour_alpha(image.roll((down, right), (1, 2)), 0.1, 2, False)
    assert torch.allclose(moved, found.roll((down, right), (0, 1)), atol=1e-4)


@pytest.mark.parametrize("kind", GROUNDS)
def test_images_of_a_batch_are_those_alone(kind: str) -> None:
    images = as_image(*(painted(disc(48, x, 20), ground(kind)) for x in (40, 50)), ground("plain") * disc(40, 40, 30))
    together = node(images)
    alone = [node(images[place : place + 1]) for place in range(3)]
    for part in (0, 1):
        assert torch.equal(together[part], torch.cat([each[part] for each in alone]))


@pytest.mark.parametrize("kind", GROUNDS)
@pytest.mark.parametrize("blur", [1.0, 3.0])
def test_colours_at_the_edge_are_the_motifs_own(kind: str, blur: float) -> None:
    wanted = disc(48, 48, 26, blur)
    image = painted(wanted, ground(kind))
    (cut,), _ = node(as_image(image))
    colours, alpha = cut[..., :3].movedim(-1, 0), cut[..., 3]
    edge = (alpha > 0.1) & (alpha < 1)
    assert edge.sum() > 50
    before, after = ((each - RED).abs().mean(0)[edge].mean() for each in (image, colours))
    assert after < 0.2 * before
    assert torch.equal(colours[:, alpha == 1], image[:, alpha == 1])
    # Over the same ground, it is the same image.
    assert (painted(alpha, ground(kind), colours) - image).abs().max() < 0.06


def test_holes_are_cut_out_when_asked_for() -> None:
    ring = disc(48, 48, 30) - disc(48, 48, 15)
    image = painted(ring, ground("plain"))
    assert overlap(colour_alpha(image, 0.1, 2, True), ring) > 0.98
    assert overlap(colour_alpha(image, 0.1, 2, False), disc(48, 48, 30)) > 0.98


def test_without_softness_edges_are_hard() -> None:
    found = colour_alpha(painted(disc(48, 48, 20, 4), GREY.expand(3, SIDE, SIDE)), 0.1, 0, False)
    assert set(found.unique().tolist()) == {0.0, 1.0}


def test_thin_lines_stay() -> None:
    line = torch.zeros(SIDE, SIDE)
    line[20:70, 40] = 1
    assert torch.equal(colour_alpha(painted(line, GREY), 0.1, 4, False), line)


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31), st.floats(0.3, 0.9))
def test_connected_is_the_obvious_flood(height: int, width: int, seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    area = torch.rand(height, width, generator=generator) < share
    start = torch.rand(height, width, generator=generator) < 0.1
    reached = {(int(y), int(x)) for y, x in (area & start).nonzero()}
    todo = list(reached)
    while todo:
        y, x = todo.pop()
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= near[0] < height and 0 <= near[1] < width and area[near] and near not in reached:
                reached.add(near)
                todo.append(near)
    assert {(int(y), int(x)) for y, x in connected(area, start).nonzero()} == reached


def test_oklab_is_as_published() -> None:
    colours = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]).T
    published = [[1, 0, 0], [0.628, 0.225, 0.126], [0.866, -0.234, 0.179], [0.452, -0.032, -0.312], [0, 0, 0]]
    # Published with three digits.
    assert (oklab(colours).T - torch.tensor(published)).abs().max() < 1e-3


def test_a_mask_is_the_alpha() -> None:
    mask = disc(48, 48, 30, 8)
    (cut,), (alpha,) = node(as_image(painted(mask, ground("vignette"))), mask=mask[None])
    assert torch.equal(alpha, mask)
    assert torch.equal(cut[..., 3], mask)
    edge = (mask > 0.1) & (mask < 1)
    assert (cut[..., :3].movedim(-1, 0) - RED).abs().mean(0)[edge].mean() < 0.05


def test_a_mask_takes_the_images_size_and_serves_all() -> None:
    mask = torch.nn.functional.interpolate(disc(48, 48, 30)[None, None], scale_factor=0.5, mode="area")[0]
    cut, alpha = node(torch.rand(3, SIDE, SIDE, 3), mask=mask)
    assert cut.shape == (3, SIDE, SIDE, 4)
    assert alpha.shape == (3, SIDE, SIDE)
    assert overlap(alpha[2], disc(48, 48, 30)) > 0.98
    # As ComfyUI's nodes take a mask without a batch.
    assert torch.equal(node(torch.rand(1, SIDE, SIDE, 3), mask=mask[0])[1], alpha[:1])


def test_transparency_that_is_there_stays() -> None:
    there = disc(48, 48, 20)
    image = torch.cat([painted(disc(48, 60, 20), GREY.expand(3, SIDE, SIDE)), there[None]])
    (alpha,) = node(as_image(image))[1]
    assert torch.allclose(alpha, there * colour_alpha(image[:3], 0.1, 2, False))


def test_a_grey_image_is_cut_out_as_the_same_in_three_channels() -> None:
    grey = painted(disc(48, 48, 20), GREY.expand(3, SIDE, SIDE), torch.ones(3, 1, 1))
    for one, three in zip(node(as_image(grey[:1])), node(as_image(grey)), strict=True):
        assert torch.equal(one, three)


@pytest.mark.parametrize(
    ("image", "mask", "line"),
    [
        (torch.rand(2, 8, 8, 3), torch.ones(3, 8, 8), naming(3, 1, 2, "masks")),
        (torch.rand(1, 8, 8, 3), torch.zeros(1, 8, 8), naming("1 of 1", "mask", "black")),
        (torch.full((2, 8, 8, 3), 0.5), None, naming("1, 2 of 2", "tolerance", 0.1)),
        (torch.rand(1, 1, 1, 3), None, naming("background", "1 of 1")),
    ],
)
def test_what_leaves_nothing_is_refused_in_one_line(image: Tensor, mask: Tensor | None, line: str) -> None:
    with pytest.raises(ValueError, match=line) as caught:
        node(image, mask=mask)
    assert "\n" not in str(caught.value)


def test_what_is_all_background_is_kept_whole_where_asked(caplog: pytest.LogCaptureFixture) -> None:
    motif, even = painted(disc(48, 48, 20), GREY.expand(3, SIDE, SIDE)), GREY.expand(3, SIDE, SIDE)
    usual = node(as_image(motif))
    assert not caplog.messages
    cut, alpha = node(as_image(motif, even), keep_whole=True)
    (said,) = caplog.messages
    assert re.search(naming("2 of 2", "tolerance", 0.1), said)
    assert torch.equal(alpha[0], usual[1][0])
    assert torch.equal(cut[0], usual[0][0])
    assert (alpha[1] == 1).all()
    assert torch.equal(cut[1, ..., :3], even.movedim(0, -1))
    # What is transparent already stays so.
    there = disc(48, 48, 20)
    assert torch.equal(node(as_image(torch.cat([even, there[None]])), keep_whole=True)[1][0], there)
    black = torch.zeros(1, SIDE, SIDE)
    assert (node(as_image(motif), mask=black, keep_whole=True)[1] == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 5)])
def test_the_smallest_images_are_cut_along_a_mask(size: tuple[int, int]) -> None:
    (cut,), (alpha,) = node(torch.rand(1, *size, 3), mask=torch.ones(1, *size))
    assert cut.shape == (*size, 4)
    assert (alpha == 1).all()


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (2, 2), (3, 5)])
def test_the_smallest_images_are_cut_by_colour(size: tuple[int, int]) -> None:
    image = torch.ones(1, *size, 3)
    image[0, 0, 0] = 0
    assert node(image)[1].flatten().tolist() == [1.0] + [0.0] * (size[0] * size[1] - 1)


@given(st.floats(0, 1), st.integers(0, 32), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=25)
def test_any_image_gives_finite_colours_in_range(tolerance: float, softness: int, holes: bool, seed: int) -> None:
    image = torch.rand(3, 17, 23, generator=torch.Generator().manual_seed(seed))
    alpha = colour_alpha(image, tolerance, softness, holes)
    for part in (alpha, clean_colours(image, alpha)):
        assert part.isfinite().all()
        assert 0 <= part.min() <= part.max() <= 1


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where files are saved and loaded."""
    folder_paths.configure(input_dir=str(tmp_path), output_dir=str(tmp_path))
    yield tmp_path
    folder_paths.configure()


@pytest.mark.parametrize("kind", ["png", "png16", "webp", "core"])
def test_transparency_is_saved_and_loaded(kind: str, folder: Path) -> None:
    cut, alpha = node(as_image(painted(disc(48, 48, 26, 3), ground("diagonal"))))
    if kind == "core":
        SaveImage.execute(cut, "cut")
    else:
        TesseraSaveImage.execute(cut, "cut", kind, 100, False)
    (path,) = folder.glob("cut*")
    with Image.open(path) as image:
        assert image.mode == "RGBA"
        saved = torch.from_numpy(np.array(image)).float() / 255
    assert (saved[..., 3] - alpha[0]).abs().max() <= 1 / 255
    seen = alpha[0] > 0
    assert (saved[..., :3] - cut[0, ..., :3]).abs()[seen].max() <= 1 / 255 + 1e-6
    loaded = LoadImage.execute(path.name).result
    assert loaded is not None
    assert torch.allclose(loaded[1][0], 1 - saved[..., 3], atol=1e-6)


def test_core_nodes_join_a_mask_as_transparency() -> None:
    image, mask = torch.rand(2, 8, 8, 3), torch.rand(1, 4, 4)
    inverted = InvertMask.execute(mask).result
    assert inverted is not None
    result = JoinImageWithAlpha.execute(image, *inverted).result
    assert result is not None
    (joined,) = result
    assert joined.shape == (2, 8, 8, 4)
    assert torch.equal(joined[..., :3], image)
    assert torch.allclose(joined[..., 3], node(image, mask=mask)[1], atol=1e-6)


def test_a_channel_of_an_image_is_a_mask() -> None:
    image = torch.rand(2, 4, 5, 3)
    for number, channel in enumerate(["red", "green", "blue"]):
        assert torch.equal(ImageToMask.execute(image, channel).result[0], image[..., number])
    with pytest.raises(ValueError, match="3 channels, and no alpha"):
        ImageToMask.execute(image, "alpha")
