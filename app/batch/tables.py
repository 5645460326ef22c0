"""Read tables row by row: CSV, JSON Lines, a JSON array, Parquet, a folder of images.

No more than one row is in memory, but for an array, which is read whole.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ...files.reading import read_file
from ...host.errors import GraphError, one_line, shown

MOST_CHARACTERS = 2**20
"""Of a line of CSV, and of one cell."""

MOST_LINE_BYTES = 2**28
"""Of a line of JSON, or of an array: a request holds images as base64 text."""

PARQUET_ROWS = 256
"""Rows of a Parquet file that are decoded together."""

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif"}
JSON_LINES_ENDINGS = {".jsonl", ".ndjson"}
SEPARATORS = ",;\t"
_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"\s*")
_BETWEEN = re.compile(r"\s*(?:,|(?=\]))")
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How files of Excel and LibreOffice begin."""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        line: where it begins, counted from 1; of Parquet files and folders its number.
        values: by column.
        is_text: the values are text throughout, as in CSV.
        place: offset and length in bytes, of JSON.
        wrong: why it cannot be read; "" where it can.
    """

    line: int
    values: dict[str, Any]
    is_text: bool = False
    place: tuple[int, int] = (0, 0)
    wrong: str = ""


def read_table(path: Path, column: str | None = None) -> Iterator[Row]:
    """Yield the rows of a table.

    Args:
        column: what the files of a folder are for.

    Raises:
        GraphError: it cannot be read at all, or not any further.
    """
    try:
        if path.is_dir():
            yield from _folder(path, column or "image")
        elif kind(path) == "parquet":
            yield from _parquet(path)
        elif kind(path) == "json lines":
            yield from _json_lines(path)
        elif kind(path) == "json":
            yield from _json_array(path)
        else:
            yield from _csv(path)
    except OSError as error:
        raise GraphError(
            [f"{path}: {error.strerror or error}; expected a table (.csv, .jsonl, .parquet) or a folder"]
        ) from error


def kind(path: Path) -> str:
    """Return "folder", "parquet", "json lines", "json" or "csv", by the ending, and else by how the file begins."""
    if path.is_dir():
        return "folder"
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        begin = file.read(64)
    if suffix == ".parquet" or begin.startswith(b"PAR1"):
        return "parquet"
    text = begin.removeprefix(codecs.BOM_UTF8).lstrip()
    if suffix != ".csv" and text.startswith(b"["):
        return "json"
    if suffix in JSON_LINES_ENDINGS or (suffix != ".csv" and text.startswith(b"{")):
        return "json lines"
    if begin.startswith(WORKBOOKS):
        raise GraphError([f"{path}: not a text; save the table as CSV UTF-8"])
    return "csv"


def _folder(path: Path, column: str) -> Iterator[Row]:
    names = sorted(name for name in os.listdir(path) if os.path.splitext(name)[1].lower() in IMAGE_ENDINGS)
    for number, name in enumerate(names, 1):
        yield Row(number, {column: os.path.abspath(path / name)}, is_text=True)


def _csv(path: Path) -> Iterator[Row]:
    try:
        yield from _csv_rows(path)
    except UnicodeDecodeError as error:
        raise GraphError([f"{path}: not UTF-8 ({error.reason}); save the table as CSV UTF-8"]) from error


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MOST_CHARACTERS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline(MOST_CHARACTERS)
        file.seek(0)
        reader = csv.reader(_lines(file, path), delimiter=_separator(header), strict=True)
        try:
            names = _names(path, next(reader, []))
            before = reader.line_num
            for cells in reader:
                line, before = before + 1, reader.line_num
                if not cells:
                    continue
                wrong = "" if len(cells) == len(names) else f"found {len(cells)} cells; expected {len(names)}"
                yield Row(line, {} if wrong else dict(zip(names, cells, strict=True)), is_text=True, wrong=wrong)
        except csv.Error as error:
            raise GraphError([f"{path}, line {reader.line_num}: {error}; expected CSV"]) from error


def _separator(header: str) -> str:
    """Return what separates cells: a comma, or what the first line has instead."""
    return next((each for each in SEPARATORS if each in header), ",")


def _names(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise GraphError([f"{path}, line 1: the column {shown(twice[0])} is there twice; rename one"])
    if names and not all(names):
        raise GraphError([f"{path}, line 1: column {names.index('') + 1} has no name; expected NODE.INPUT"])
    return names


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(MOST_CHARACTERS + 1):
        number += 1
        if len(line) > MOST_CHARACTERS:
            raise GraphError(
                [f"{path}, line {number}: more than {MOST_CHARACTERS} characters; expected a shorter line"]
            )
        yield line


def _json_lines(path: Path) -> Iterator[Row]:
    offset = 0
    with path.open("rb") as file:
        number = 0
        while content := file.readline(MOST_LINE_BYTES + 1):
            number += 1
            if len(content) > MOST_LINE_BYTES:
                raise GraphError([f"{path}, line {number}: more than {MOST_LINE_BYTES} bytes; expected a shorter line"])
            place, offset = (offset, len(content)), offset + len(content)
            if content.strip():
                yield _json_row(number, content, place)


def _json_row(number: int, content: bytes, place: tuple[int, int]) -> Row:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        return Row(number, {}, place=place, wrong=f"not JSON ({one_line(str(error))}); expected one object a line")
    if not isinstance(values, dict):
        return Row(number, {}, place=place, wrong=f"found {shown(values)}; expected an object, such as {{'3.seed': 7}}")
    return Row(number, values, place=place)


def _json_array(path: Path) -> Iterator[Row]:
    """Yield the objects of an array, each of which may go over several lines."""
    try:
        text = read_file(path, MOST_LINE_BYTES).decode()
    except UnicodeDecodeError as error:
        raise GraphError([f"{path}: not UTF-8 ({error.reason}); save it as UTF-8"]) from error
    line, offset, begin, at = 1, 0, 0, text.index("[") + 1
    while True:
        at = _end(_BLANK, text, at)
        line, offset, begin = line + text.count("\n", begin, at), offset + len(text[begin:at].encode()), at
        if text.startswith("]", at):
            return
        try:
            _, at = _DECODER.raw_decode(text, at)
            after = _end(_BETWEEN, text, at)
        except (ValueError, RecursionError) as error:
            raise GraphError([f"{path}, line {line}: not JSON ({one_line(str(error))}); expected an array"]) from error
        content = text[begin:at].encode()
        yield _json_row(line, content, (offset, len(content)))
        at = after


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return where what begins at a place ends, or raise ValueError where it does not begin there."""
    found = pattern.match(text, at)
    if found is None:
        raise ValueError("no comma and no end behind an object")
    return found.end()


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise GraphError([f"{path}: Parquet needs pyarrow; pip install tessera-nodes[tables]"]) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            _names(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    odd = [name for name, each in values.items() if not isinstance(each, (str, int, float, type(None)))]
                    wrong = f"column {shown(odd[0])}: found a {type(values[odd[0]]).__name__}" if odd else ""
                    yield Row(number, values, wrong=f"{wrong}; expected text or numbers" if odd else "")
    except pa.ArrowException as error:
        raise GraphError([f"{path}: {one_line(str(error), 200)}; expected a Parquet file"]) from error
