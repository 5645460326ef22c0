"""Texts that files carry beside an image or latents: in PNG chunks, in the EXIF data of WebP, JPEG and AVIF, or in the
metadata of safetensors, which saved latents are."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator

from ...weights.safetensors_files import LENGTH_BYTES, parse_header

SAFETENSORS = "safetensors"
PLACES = {"PNG": "chunk", SAFETENSORS: "metadata"}
"""Where texts are, by the kind of file; EXIF otherwise."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
LONGEST_TEXTS = 64 * 1024 * 1024
"""Bytes of the texts of a file together, where they are unpacked; no workflow is longer."""

TEXT_CHUNKS = {b"tEXt", b"zTXt", b"iTXt", b"comf"}
# Directory of EXIF's own tags, and the one in it for remarks.
EXIF_DIRECTORY, USER_COMMENT = 0x8769, 0x9286
ENCODINGS = {b"ASCII\0\0\0": "utf-8", b"UNICODE\0": "utf-16", b"\0" * 8: "utf-8"}


def kind(content: bytes) -> str | None:
    """Return the format of a file whose texts can be read, by its first bytes."""
    if content.startswith(PNG_SIGNATURE):
        return "PNG"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WebP"
    if content.startswith(JPEG_SIGNATURE):
        return "JPEG"
    if content[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and _header_end(content) <= len(content):
        return SAFETENSORS
    return "AVIF" if content[4:12] in (b"ftypavif", b"ftypavis") else None


def texts(content: bytes, wanted: Collection[str]) -> dict[str, str]:
    """Return texts of a file by their keywords, in lower case. Those of EXIF are written `keyword:text`.

    Args:
        wanted: the keywords; other texts are not unpacked, and may be damaged.

    Raises:
        ValueError: the file is not what it begins as, or the texts are damaged or longer than 64 MB.
    """
    if content.startswith(PNG_SIGNATURE):
        pairs = _png_texts(content, wanted)
    else:
        pairs = _metadata_texts(content) if kind(content) == SAFETENSORS else _exif_texts(content)
    return {key.lower(): text for key, text in pairs if key.lower() in wanted}


def _header_end(content: bytes) -> int:
    return LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")


def _metadata_texts(content: bytes) -> Iterator[tuple[str, str]]:
    metadata = parse_header(content[LENGTH_BYTES : _header_end(content)]).get("__metadata__")
    for key, text in metadata.items() if isinstance(metadata, dict) else ():
        if isinstance(text, str):
            yield key, text


def _png_texts(content: bytes, wanted: Collection[str]) -> Iterator[tuple[str, str]]:
    room = LONGEST_TEXTS
    if content[12:16] != b"IHDR":
        raise ValueError("it has no header")
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        data = content[at + 8 : at + 8 + length]
        if name in TEXT_CHUNKS and len(data) == length:
            keyword, _, rest = data.partition(b"\0")
            key = keyword.decode("latin-1")
            if key.lower() in wanted:
                text = _unpacked(name, rest, room)
                room -= len(text)
                yield key, _decoded(text)
        at += 12 + length


def _unpacked(name: bytes, rest: bytes, room: int) -> bytes:
    if name == b"zTXt":
        return _inflated(rest[1:], room)
    if name != b"iTXt":
        return rest
    language_and_text = rest[2:].split(b"\0", 2)
    text = language_and_text[-1] if len(language_and_text) == 3 else b""
    return _inflated(text, room) if rest[:1] == b"\1" else text


def _inflated(data: bytes, room: int) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(data, max(1, room))
    except zlib.error as error:
        raise ValueError(f"a compressed text is damaged: {error}") from error
    if unpacking.unconsumed_tail:
        raise ValueError("its texts are longer than 64 MB")
    return text


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _exif_texts(content: bytes) -> Iterator[tuple[str, str]]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=["WEBP", "JPEG", "AVIF"]) as image:
                exif = image.getexif()
                values = [*exif.values(), exif.get_ifd(EXIF_DIRECTORY).get(USER_COMMENT), image.info.get("comment")]
    except UnidentifiedImageError:
        raise ValueError("it is cut short or damaged") from None
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error
    for value in values:
        text = _exif_text(value).strip("\0 \t\r\n")
        key, colon, rest = text.partition(":")
        if colon and key.isalnum():
            yield key, rest
        elif text.startswith("{"):
            yield "json", text


def _exif_text(value: object) -> str:
    """Return a tag as text.

    Pillow reads texts as Latin-1, and leaves remarks as bytes with their encoding before them.
    """
    if isinstance(value, str):
        try:
            return value.encode("latin-1").decode()
        except UnicodeError:
            return value
    if not isinstance(value, bytes):
        return ""
    encoding = ENCODINGS.get(value[:8])
    if encoding == "utf-16" and value[8:10] not in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16-le" if value[9:10] == b"\0" else "utf-16-be"
    return value[8:].decode(encoding, "replace") if encoding else _decoded(value)
