"""Make the thumbnails of some example workflows, the images of their nodes' help pages, and the sheet of styles.

`python -m tessera.tools.example_images [NAME ...]` runs the examples with `tessera run`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ..app.cli.main import main
from ..images.sheets import contact_sheet
from ..nodes.style_preset import COLUMNS, THUMBNAILS
from ..prompts.styles import STYLES, styled
from .page_images import Graph, Texture
from .sheets import Images, centred, encoded, grid, row, write

EXAMPLES = Path(__file__).parents[1] / "example_workflows"
CELL = 88
"""Width of a thumbnail of a style, in px."""
SIDE, GROUND = 512, (32, 32, 32)
"""Of thumbnails: their side in px, and the colour around an image that is not square."""
QUALITY = 80
"""Of JPEG files of many cells, which are larger than other images of pages."""


def drawn(name: str) -> Images:
    """Run an example, and return the images that it saves, node by node."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()) as printed:
        if main(["run", str(EXAMPLES / f"{name}.json"), "--output-dir", folder, "--json"]):
            raise RuntimeError(f"the example {name} failed; its error is printed above")
        outputs = json.loads(printed.getvalue())["outputs"]
        files = [Path(each["path"]) for shown in outputs.values() for each in shown.get("images", ())]
        return [Image.open(file).convert("RGB") for file in files if file.is_relative_to(folder)]


def style_sheet() -> None:
    """Write the same texture with the words of every style."""
    graph = Graph()
    saved = [graph.save(Texture(graph, styled("red and white zigzag", name)).image) for name in STYLES]
    graph.run()
    cells = [each()[0].resize((CELL, CELL), Image.Resampling.LANCZOS) for each in saved]
    tensors = [torch.from_numpy(np.array(each)).float() / 255 for each in cells]
    sheet = contact_sheet(tensors, list(STYLES), COLUMNS)[0]
    THUMBNAILS.write_bytes(encoded(Image.fromarray((sheet * 255).round().byte().numpy()), QUALITY))


def write_example(name: str) -> None:
    """Write the thumbnail of an example, and the same image for a help page; the one of styles has their sheet."""
    images = drawn(name)
    largest = max(each.width for each in images), max(each.height for each in images)
    page = grid([centred(each, largest) for each in images], 4) if len(images) > 3 else row(images)
    (EXAMPLES / f"{name}.jpg").write_bytes(encoded(square(page), QUALITY))
    if name != "style_preset":
        write(name, page)


def square(image: Image.Image) -> Image.Image:
    """Return an image as the thumbnails of templates are: in the middle of a square."""
    return ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.LANCZOS, color=GROUND)


def write_all(names: list[str]) -> None:
    """Write what is named, or everything."""
    for name in names or ["styles", "style_preset", "unzoom", "second_pass", "control_image"]:
        style_sheet() if name == "styles" else write_example(name)


if __name__ == "__main__":
    write_all(sys.argv[1:])
