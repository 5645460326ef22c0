"""Images over HTTP: shown, uploaded, masked; and never a file outside of the folders."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import FormData
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from serving import Client, answer, serve
from tessera.app.server.routes import uploads
from tessera.app.server.security import safe_name


def encoded(mode: str = "RGB", size: tuple[int, int] = (6, 4), kind: str = "PNG", seed: int = 0) -> bytes:
    """An image of random pixels."""
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else size[::-1]
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def decoded(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image


def form(content: bytes, name: str = "a.png", **fields: str) -> FormData:
    """A form with an image."""
    made = FormData()
    made.add_field("image", content, filename=name, content_type="image/png")
    for field, value in fields.items():
        made.add_field(field, value)
    return made


async def fetch(client: Client, query: dict[str, str]) -> tuple[int, bytes, Any]:
    async with client.get("/view", params=query) as response:
        return response.status, await response.read(), response.headers


def test_a_file_is_shown_as_it_is_as_a_preview_and_by_channel(tmp_path: Path) -> None:
    content = encoded("RGBA")

    async def test(client: Client) -> None:
        (tmp_path / "output" / "sub").mkdir()
        (tmp_path / "output" / "sub" / "a.png").write_bytes(content)
        place = {"filename": "a.png", "subfolder": "sub"}
        status, shown, headers = await fetch(client, place)
        assert (status, shown, headers["Content-Type"]) == (200, content, "image/png")
        assert 'filename="a.png"' in headers["Content-Disposition"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        original = np.asarray(decoded(content))
        _, rgb, _ = await fetch(client, place | {"channel": "rgb"})
        assert np.array_equal(np.asarray(decoded(rgb)), original[..., :3])
        _, alpha, _ = await fetch(client, place | {"channel": "a"})
        assert np.array_equal(np.asarray(decoded(alpha))[..., 3], original[..., 3])
        _, webp, headers = await fetch(client, place | {"preview": "webp;50"})
        assert (decoded(webp).format, headers["Content-Type"]) == ("WEBP", "image/webp")
        for wanted in ("jpeg", "jpeg;90", "jpeg;0", "jpeg;999", "jpeg;" + "9" * 5000):
            _, jpeg, _ = await fetch(client, place | {"preview": wanted})
            assert decoded(jpeg).format == "JPEG"
        _, kept, _ = await fetch(client, place | {"preview": "jpeg", "channel": "rgba"})
        assert decoded(kept).format == "WEBP"
        (tmp_path / "input" / "b.png").write_bytes(content)
        assert (await fetch(client, {"filename": "b.png", "type": "input"}))[1] == content
        assert (await fetch(client, {"filename": "b.png [input]"}))[1] == content

    serve(tmp_path, test)


@pytest.mark.parametrize("name", ['a"b.png', "a\\b.png", "a\r\nX: y.png", "\u00fc.png"])
def test_no_name_of_a_file_breaks_a_header(tmp_path: Path, name: str) -> None:
    async def test(client: Client) -> None:
        (tmp_path / "output" / name).write_bytes(encoded())
        status, _, headers = await fetch(client, {"filename": name})
        assert status == 200
        assert re.fullmatch(r'inline; filename="[ -~]*\.png"', headers["Content-Disposition"])
        assert "X" not in headers

    serve(tmp_path, test)


def test_pages_and_scripts_are_downloaded_instead_of_shown(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        for name in ("a.html", "a.svg", "a.js", "a.css", "a.xml", "a.xhtml"):
            (tmp_path / "output" / name).write_text("<script>")
            _, _, headers = await fetch(client, {"filename": name})
            assert headers["Content-Type"] == "application/octet-stream"
            assert headers["Content-Disposition"].startswith("attachment")

    serve(tmp_path, test)


OUTSIDE = [
    {"filename": "../secret.png"},
    {"filename": "/etc/passwd"},
    {"filename": "..\\secret.png"},
    {"filename": "secret.png", "subfolder": ".."},
    {"filename": "secret.png", "subfolder": "../"},
    {"filename": "passwd", "subfolder": "/etc"},
    {"filename": "link.png"},
    {"filename": "secret.png", "subfolder": "linked"},
    {"filename": "a.png", "type": "models"},
    {"filename": ""},
    {"filename": "a\0.png"},
    {"filename": "sub"},
    {"filename": "none.png"},
    {"filename": "x" * 300},
]


@pytest.mark.parametrize("query", OUTSIDE)
def test_nothing_outside_of_the_folders_is_shown(tmp_path: Path, query: dict[str, str]) -> None:
    async def test(client: Client) -> None:
        (tmp_path / "secret.png").write_bytes(encoded())
        (tmp_path / "output" / "sub").mkdir()
        (tmp_path / "output" / "link.png").symlink_to(tmp_path / "secret.png")
        (tmp_path / "output" / "linked").symlink_to(tmp_path)
        for extra in ({}, {"preview": "webp"}, {"channel": "a"}):
            status, _, _ = await fetch(client, query | extra)
            assert status in (400, 403, 404)

    serve(tmp_path, test)


def test_what_is_not_an_image_has_no_preview(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        for number, content in enumerate((b"", b"text", encoded(size=(64, 64))[:200])):
            (tmp_path / "output" / f"{number}.png").write_bytes(content)
            assert (await fetch(client, {"filename": f"{number}.png", "preview": "webp"}))[0] == 400

    serve(tmp_path, test)


def test_an_image_is_uploaded_once_and_never_over_another(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        one, two = encoded(seed=1), encoded(seed=2)
        place = {"subfolder": "", "type": "input"}
        assert await answer(client, "POST", "/upload/image", data=form(one)) == (200, {"name": "a.png", **place})
        assert (await answer(client, "POST", "/upload/image", data=form(one)))[1]["name"] == "a.png"
        assert (await answer(client, "POST", "/upload/image", data=form(two)))[1]["name"] == "a (1).png"
        assert (tmp_path / "input" / "a.png").read_bytes() == one
        await answer(client, "POST", "/upload/image", data=form(two, overwrite="true"))
        assert (tmp_path / "input" / "a.png").read_bytes() == two
        _, told = await answer(client, "POST", "/upload/image", data=form(one, subfolder="x/y", type="temp"))
        assert told == {"name": "a.png", "subfolder": "x/y", "type": "temp"}
        assert (tmp_path / "temp" / "x" / "y" / "a.png").read_bytes() == one
        _, files = await answer(client, "GET", "/internal/files/input")
        assert sorted(files) == ["a (1).png [input]", "a.png [input]"]

    serve(tmp_path, test)


@pytest.mark.parametrize("kind", uploads.SUFFIXES)
def test_every_format_gets_a_name_that_fits(tmp_path: Path, kind: str) -> None:
    if kind == "AVIF" and kind not in Image.registered_extensions().values():
        pytest.skip("this Pillow has no AVIF")

    async def test(client: Client) -> None:
        for name in ("photo.html", "photo", f"photo{uploads.SUFFIXES[kind][-1].upper()}"):
            data = form(encoded(kind=kind), name, overwrite="1")
            _, told = await answer(client, "POST", "/upload/image", data=data)
            assert told["name"].lower().endswith(uploads.SUFFIXES[kind])

    serve(tmp_path, test)


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        (b"", {}),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}),
        (encoded(size=(64, 64))[:500], {}),
        (b"GIF89a", {}),
        (encoded(), {"type": "models"}),
        (encoded(), {"subfolder": ".."}),
        (encoded(), {"subfolder": "/etc"}),
        (encoded(), {"subfolder": "linked"}),
        (encoded(), {"subfolder": "a\0b"}),
        (encoded(), {"subfolder": "x" * 300}),
        (encoded(), {"subfolder": "file.txt"}),
    ],
)
def test_what_cannot_be_uploaded_is_refused(tmp_path: Path, content: bytes, fields: dict[str, str]) -> None:
    async def test(client: Client) -> None:
        (tmp_path / "input" / "file.txt").write_text("here")
        (tmp_path / "input" / "linked").symlink_to(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        status, told = await answer(client, "POST", "/upload/image", data=form(content, **fields))
        assert status in (400, 403)
        assert "\n" not in told["error"]
        assert sorted(tmp_path.rglob("*")) == before

    serve(tmp_path, test)


def test_an_image_of_too_many_pixels_or_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_PIXELS", 100)

    async def test(client: Client) -> None:
        status, told = await answer(client, "POST", "/upload/image", data=form(encoded(size=(11, 10))))
        assert (status, "11 x 10 px" in told["error"]) == (400, True)
        assert (await answer(client, "POST", "/upload/image", data=form(encoded(size=(10, 10)))))[0] == 200
        client.app._client_max_size = 1000
        for path in ("/upload/image", "/upload/mask"):
            assert (await answer(client, "POST", path, data=form(b"x" * 2000)))[0] == 413
        assert (await answer(client, "POST", "/prompt", data=b"x" * 2000))[0] == 413
        assert (await answer(client, "POST", "/userdata/x", data=b"x" * 2000))[0] == 413

    serve(tmp_path, test)


def test_a_mask_becomes_the_alpha_channel_of_its_image(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        texts = PngInfo()
        texts.add_text("prompt", '{"a": 1}')
        original, painted = decoded(encoded("RGB")), decoded(encoded("RGBA", seed=3))
        original.save(tmp_path / "input" / "photo.png", pnginfo=texts)
        file = BytesIO()
        painted.save(file, "PNG")
        ref = json.dumps({"filename": "photo.png", "subfolder": "", "type": "input"})
        data = form(file.getvalue(), "clipspace-mask-1.png", subfolder="clipspace", original_ref=ref)
        status, told = await answer(client, "POST", "/upload/mask", data=data)
        assert (status, told["subfolder"]) == (200, "clipspace")
        with Image.open(tmp_path / "input" / "clipspace" / told["name"]) as made:
            pixels: Any = np.asarray(made)
            assert made.info["prompt"] == '{"a": 1}'
        assert np.array_equal(pixels[..., :3], np.asarray(original))
        assert np.array_equal(pixels[..., 3], np.asarray(painted)[..., 3])
        for wrong in (
            "{",
            "[]",
            "{}",
            '{"filename": 3}',
            '{"filename": "../photo.png"}',
            '{"filename": "none.png", "type": "input"}',
            '{"filename": "photo.png", "type": "models"}',
        ):
            data = form(file.getvalue(), original_ref=wrong)
            assert (await answer(client, "POST", "/upload/mask", data=data))[0] in (400, 403)
        small = form(encoded("RGBA", (3, 3)), original_ref=ref)
        assert (await answer(client, "POST", "/upload/mask", data=small))[0] == 400

    serve(tmp_path, test)


@given(st.text())
@settings(max_examples=300)
def test_names_are_safe(name: str) -> None:
    safe = safe_name(name)
    assert not set(safe) & set('/\\<>:"|?*\0\n')
    assert not safe.startswith(".")
    assert len(safe.encode()) <= 200
    assert safe_name(safe) == safe


def test_names_stay_as_they_are_where_they_can() -> None:
    assert safe_name("moss (1).png") == "moss (1).png"
    assert safe_name("../../etc/moss.png") == "moss.png"
    assert safe_name("C:\\pictures\\moss.png") == "moss.png"
