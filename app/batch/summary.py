"""What stands at the end of a batch: numbers, and the images at a glance."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...files.writing import replace
from .journal import Journal

if TYPE_CHECKING:
    from PIL import Image

CONTACT_SHEET = "contact_sheet.jpg"
MOST_THUMBNAILS = 100
COLUMNS = 10
SIDE = 128
"""Pixels of a thumbnail."""

MARGIN = 4
MOST_ERRORS = 10
"""Errors that a summary repeats; the journal has all."""

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff")


@dataclass
class Summary:
    """The state of a batch.

    Attributes:
        done, failed: jobs with and without results, earlier runs included.
        seconds: that the jobs took, added up over workers.
        errors: the first of them, a line each.
        sheet: the images of jobs at equal distances, with the line of each.
    """

    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    sheet: list[tuple[int, Path]] = field(default_factory=list)


def summarize(journal: Journal, belongs: Callable[[str], bool]) -> Summary:
    """Read the journal once, and return the summary of the jobs that belong to the table; others are from before."""
    summary = Summary()
    every = 1
    seen = 0
    for line in journal.lines():
        if not belongs(line["job"]):
            continue
        if line.get("error") is not None:
            summary.failed += 1
            if len(summary.errors) < MOST_ERRORS:
                summary.errors.append(f"line {line.get('line')}: {line['error']}")
            continue
        summary.done += 1
        summary.seconds += float(line.get("seconds") or 0)
        image = next((name for name in line["files"] if name.lower().endswith(IMAGES)), None)
        if image is None:
            continue
        if seen % every == 0:
            summary.sheet.append((int(line.get("line") or 0), journal.folder / image))
        seen += 1
        if len(summary.sheet) > MOST_THUMBNAILS:
            del summary.sheet[1::2]
            every *= 2
    summary.sheet.sort()
    return summary


def draw_sheet(summary: Summary, folder: Path) -> Path | None:
    """Draw the images that a summary has, each with its line of the table; return the file, None without images.

    Raises:
        OSError: it cannot be written.
    """
    from PIL import Image, ImageDraw

    thumbnails = list(_thumbnails(summary.sheet))
    if not thumbnails:
        return None
    columns = min(COLUMNS, len(thumbnails))
    rows = -(-len(thumbnails) // columns)
    cell = SIDE + MARGIN
    sheet = Image.new("RGB", (columns * cell + MARGIN, rows * cell + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (line, image) in enumerate(thumbnails):
        x, y = MARGIN + index % columns * cell, MARGIN + index // columns * cell
        sheet.paste(image, (x + (SIDE - image.width) // 2, y + (SIDE - image.height) // 2))
        draw.text((x + 3, y + 2), str(line), fill="white", stroke_width=1, stroke_fill="black")
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=90)
    replace(folder / CONTACT_SHEET, file.getvalue())
    return folder / CONTACT_SHEET


def _thumbnails(places: list[tuple[int, Path]]) -> Iterator[tuple[int, Image.Image]]:
    from PIL import Image

    from ...host.images.loading import readable_formats

    formats = readable_formats()
    for line, path in places:
        try:
            with Image.open(path, formats=formats) as image:
                image.draft("RGB", (SIDE, SIDE))
                small = image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue
        small.thumbnail((SIDE, SIDE))
        yield line, small
