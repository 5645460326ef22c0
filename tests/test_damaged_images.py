"""Images that are damaged or too large: read as far as ComfyUI reads them, and within bounds."""

from __future__ import annotations

import resource
import struct
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naming import naming
from PIL import Image, ImageFile, UnidentifiedImageError
from tessera.app.api import Results
from tessera.app.batch.summary import Summary, draw_sheet
from tessera.app.engines import server_files
from tessera.host.images import loading
from tessera.host.images.loading import load_image

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
LONG_TEXT = zlib.compress(bytes(3_000_000))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*behind: bytes, before: bytes = b"") -> bytes:
    """An image with chunks before and behind its pixels."""
    stream = BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    whole = stream.getvalue()
    return whole[:33] + before + whole[33:-12] + b"".join(behind) + whole[-12:]


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says how large it is, and holds a few bytes."""
    about = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))
    return loading.PNG_SIGNATURE + about + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        png(chunk(b"iCCP", b"")),
        png(chunk(b"iCCP", b"name")),
        png(before=chunk(b"iCCP", b"name\0\0rubbish")),
        png(before=chunk(b"zTXt", b"workflow\0\0" + LONG_TEXT)),
        png(chunk(b"iTXt", b"workflow\0\1\0\0\0" + LONG_TEXT)),
        png(before=chunk(b"pHYs", b"1")),
        png(before=chunk(b"sRGB", b"")),
        png(chunk(b"gAMA", b"1")),
        png(before=chunk(b"cHRM", b"12345")),
        png(chunk(b"tEXt", b"a")[:-2] + b"??"),
    ],
)
def test_what_stands_beside_the_pixels_does_not_matter(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    image, mask = load_image(tmp_path / "a.png")
    assert torch.equal(image[0], torch.from_numpy(PIXELS).float() / 255)
    assert mask.shape == (1, 64, 64)


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff", "gif"])
def test_an_image_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path, kind: str, caplog: Any) -> None:
    stream = BytesIO()
    Image.fromarray(PIXELS).save(stream, kind)
    (tmp_path / "cut").write_bytes(stream.getvalue()[: len(stream.getvalue()) * 3 // 4])
    image, _ = load_image(tmp_path / "cut")
    assert image.shape == (1, 40, 30, 3)
    assert "cut is damaged" in caplog.text
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("kept", [0, 3, 20, 40])
def test_an_image_without_pixels_is_refused(tmp_path: Path, kept: int) -> None:
    (tmp_path / "cut.png").write_bytes(png()[:kept])
    with pytest.raises(ValueError, match="cut.png (is|has) "):
        load_image(tmp_path / "cut.png")


@pytest.mark.parametrize(
    ("width", "height", "depth"),
    [(1, 170_000_000, 1), (170_000_000, 1, 1), (13_000, 13_000, 1), (9_500, 9_500, 8), (2**31 - 1, 2**31 - 1, 8)],
)
def test_headers_that_would_fill_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int, depth: int
) -> None:
    (tmp_path / "a.png").write_bytes(header(width, height, depth, colour=0))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="a.png has .*pixels.*expected"):
        load_image(tmp_path / "a.png")


def test_frames_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.fromarray(np.roll(PIXELS, place, 0)).resize((64, 64)) for place in range(12)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    count = len(load_image(tmp_path / "a.gif")[0])
    assert count == 12
    monkeypatch.setattr(loading, "MAX_BYTES", (count - 1) * 64 * 64 * 16)
    with pytest.raises(ValueError, match=naming("a.gif", "64 x 64", "at most")):
        load_image(tmp_path / "a.gif")
    monkeypatch.setattr(loading, "MAX_BYTES", 2**30)
    monkeypatch.setattr(loading, "MAX_FRAMES", count - 1)
    with pytest.raises(ValueError, match=naming("a.gif", f"more than {count - 1} frames")):
        load_image(tmp_path / "a.gif")


def test_formats_that_start_programs_are_not_opened(tmp_path: Path) -> None:
    """Nor are they where a server sends them as an image, which is checked, shown small, and opened for the caller."""
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    path = tmp_path / "a.png"
    path.write_bytes(program)
    with pytest.raises(ValueError, match="a.png is no image"):
        load_image(path)
    assert "cannot identify" in server_files.checked("a.png", program)
    assert draw_sheet(Summary(sheet=[(1, path)]), tmp_path) is None
    with pytest.raises(UnidentifiedImageError):
        Results([str(path)], {}, 0.0)[0]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_chunk_that_claims_gigabytes_is_not_given_them(tmp_path: Path) -> None:
    content = bytearray(png())
    content[33:37] = b"\xff\0\0\0"
    (tmp_path / "a.png").write_bytes(content)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, before[1]))
    try:
        assert load_image(tmp_path / "a.png")[0].shape == (1, 40, 30, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("place", [32, 40, 48, 64])
def test_sizes_inside_that_are_larger_than_the_memory_are_damage(tmp_path: Path, place: int) -> None:
    stream = BytesIO()
    Image.fromarray(PIXELS).save(stream, "JPEG2000")
    content = bytearray(stream.getvalue())
    content[place : place + 8] = b"\x7f" + b"\xff" * 7
    (tmp_path / "a.jp2").write_bytes(content)
    try:
        assert load_image(tmp_path / "a.jp2")[0].ndim == 4
    except ValueError as error:
        assert "a.jp2" in str(error)
