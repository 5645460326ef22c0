"""Several images on one: rows, grids and repeats for help pages and examples, written as small JPEG files."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..images.safety import covered

FOLDER = Path(__file__).parents[1] / "web" / "images"
WIDTH, MOST_BYTES, GAP, PAPER = 640, 60_000, 8, "white"
Images = list[Image.Image]


def text_card(before: str, after: str) -> Image.Image:
    """Show a prompt above what became of it."""
    page = Image.new("RGB", (WIDTH, 140), "#202124")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    draw.text((16, 14), before, fill="#8ab4f8", font=font)
    draw.multiline_text((16, 48), "\n".join(wrap(after, 72)), fill="#e8eaed", font=font, spacing=6)
    return page


def hidden(image: Image.Image, method: str) -> Image.Image:
    """Hide an image as Safety Filter does; no checker ships with the pack that could flag one."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    return Image.fromarray((covered(pixels, method) * 255).byte().permute(1, 2, 0).numpy())


def compressed(image: Image.Image, quality: int) -> Image.Image:
    """Write an image as JPEG and read it again."""
    return Image.open(BytesIO(encoded(image, quality))).convert("RGB")


def scaled(image: Image.Image, times: int) -> Image.Image:
    """Enlarge an image by a whole number."""
    return image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)


def repeated(image: Image.Image, times: int = 3) -> Image.Image:
    """Repeat an image side by side."""
    return grid([image] * times**2, times, gap=0)


def middle(image: Image.Image) -> Image.Image:
    """Repeat an image, and keep the area around the point where four copies meet."""
    x, y = image.width // 2, image.height // 2
    return repeated(image, 2).crop((x, y, x + image.width, y + image.height))


def centred(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Put an image in the middle of an empty one."""
    page = Image.new("RGB", size, PAPER)
    page.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return page


def row(images: Sequence[Image.Image], times: int = 1) -> Image.Image:
    """Put images side by side."""
    return grid(images, len(images), times)


def grid(images: Sequence[Image.Image], columns: int, times: int = 1, gap: int = GAP) -> Image.Image:
    """Put images into rows, each as high as the highest of its images."""
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    widths = [sum(each.width * times + gap for each in line) - gap for line in rows]
    heights = [max(each.height for each in line) * times for line in rows]
    page = Image.new("RGB", (max(widths), sum(heights) + gap * (len(rows) - 1)), PAPER)
    y = 0
    for line, height in zip(rows, heights, strict=True):
        x = 0
        for each in line:
            page.paste(scaled(each, times), (x, y))
            x += each.width * times + gap
        y += height + gap
    return page


def write(name: str, image: Image.Image) -> None:
    """Write an image as the best JPEG of at most `WIDTH` px and `MOST_BYTES`."""
    if image.width > WIDTH:
        height = round(image.height * WIDTH / image.width)
        image = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
    files = (encoded(image, quality) for quality in range(90, 30, -5))
    (FOLDER / f"{name}.jpg").write_bytes(next(file for file in files if len(file) <= MOST_BYTES))


def encoded(image: Image.Image, quality: int) -> bytes:
    """Return an image as a JPEG file."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()
