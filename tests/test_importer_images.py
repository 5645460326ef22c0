"""Images in requests: kept as they are, or refused in one line."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from importing import (
    PROMPT,
    encoded,
    imported,
    nodes_in,
)
from naming import naming
from tessera.app.services.bodies import images
from tessera.app.services.bodies.images import RequestImages
from tessera.host.errors import GraphError
from tessera.host.schema.object_info import ObjectInfo


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectInfo]:
    yield from nodes_in(tmp_path_factory.mktemp("importer"))


def refused_image(value: str, files: dict[str, Path] | None = None) -> str:
    with pytest.raises(GraphError) as caught:
        RequestImages(files or {})("init_image", value)
    (line,) = caught.value.lines
    return line


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_images_are_kept_byte_for_byte(kind: str) -> None:
    found = RequestImages({})
    text = encoded(kind=kind)
    name = found("init_image", f"data:image/{kind.lower()};base64,{text}")
    assert found("mask_image", text) == name
    assert found.found == {name: base64.b64decode(text)}


def test_base64_of_either_alphabet_with_or_without_padding() -> None:
    # What follows the image takes the letters in which the alphabets differ.
    content = base64.b64decode(encoded()) + b"\xfb\xff" * 9
    content += bytes((1 - len(content)) % 3)
    text = base64.b64encode(content).decode()
    assert set("+/=") <= set(text)
    found = RequestImages({})
    name = found("init_image", text)
    for other in (text.rstrip("="), f"{text}=", text.replace("+", "-").replace("/", "_")):
        assert found("init_image", other) == name
    assert found.found == {name: content}


def test_images_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused_image("https://example.com/a.png").endswith("or --image https://example.com/a.png=FILE")
    assert "nothing is fetched" in refused_image("data:image/png;base64,%%%")
    assert refused_image(base64.b64encode(bytes(100)).decode()).endswith("no readable image; expected PNG, JPEG, WEBP")
    assert "no readable image" in refused_image(encoded((64, 64), "BMP"))
    cut = base64.b64encode(base64.b64decode(encoded((300, 300)))[:-400]).decode()
    assert "no readable image" in refused_image(cut)
    assert "expected an image" in refused_image("a", {"a": tmp_path / "missing.png"})
    monkeypatch.setattr(images, "MAX_BYTES", 50)
    assert "more than 50 bytes" in refused_image(encoded())
    big = tmp_path / "big.png"
    big.write_bytes(bytes(51))
    assert "more than 50 bytes" in refused_image("a", {"a": big})


def test_images_are_counted(info: ObjectInfo) -> None:
    samples = {"teal": [encoded()] * 100, "zigzag": [encoded()] * 29}
    with pytest.raises(GraphError, match=naming("more than", 128)):
        imported("octoai", PROMPT | {"transfer_images": samples}, info)


@pytest.mark.parametrize("side", [8200, 10_000, 60_000])
def test_decompression_bombs_are_refused_before_they_are_read(side: int) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(10))
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data)]
    assert "pixels" in refused_image(base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode())
