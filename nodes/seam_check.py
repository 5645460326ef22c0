"""Seam Check: measure and show the seams of a texture."""

from __future__ import annotations

from torch import Tensor

from ..contract import io
from ..tiling import seam
from ..tiling.axes import REPEATS
from .inputs import repeat_input
from .shown import files_of, shown


class TesseraSeamCheck(io.ComfyNode):
    """Measure and show the seams of textures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSeamCheck",
            display_name="Seam Check",
            category="Tessera/tiling",
            description="Repeats a texture side by side and measures whether the step across its edges stands out.",
            search_aliases=[
                "seam check",
                "tile preview",
                "repeat image",
                "tileable",
                "seamless texture",
                "tiling test",
            ],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The texture, or a batch of textures of one size."),
                io.Int.Input(
                    "columns",
                    default=3,
                    min=1,
                    max=16,
                    optional=True,
                    tooltip="Number of repeats side by side.",
                ),
                io.Int.Input(
                    "rows", default=3, min=1, max=16, optional=True, tooltip="Number of repeats below each other."
                ),
                repeat_input("the edges of the other do not count"),
            ],
            outputs=[
                io.Image.Output(
                    display_name="tiled",
                    tooltip="The texture repeated columns x rows times; once along an axis that does not repeat.",
                ),
                io.Image.Output(
                    display_name="heatmap",
                    tooltip="The texture moved by half, so that its edges meet in the middle; too large steps glow.",
                ),
                io.Float.Output(
                    display_name="seam_ratio",
                    tooltip="Step across the edge divided by the median step inside, for the worst image and "
                    "repeating axis; 1 means no visible seam.",
                ),
                io.String.Output(display_name="report", tooltip="The measures of each repeating axis, in words."),
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, columns: int = 3, rows: int = 3, repeat: str = "straight") -> io.NodeOutput:
        """Measure, then draw."""
        axes = REPEATS[repeat]
        seams = seam.measure(images, axes)
        heat, ratio, report = seam.heat_map(images, axes), max(found.ratio for found in seams), seam.report(seams)
        look = shown(report, seam_ratio=ratio) | {
            "images": files_of(heat),
            "textures": files_of(images),
            "layout": (columns, rows, repeat),
            "seam_visible": (any(found.visible for found in seams),),
        }
        return io.NodeOutput(seam.repeat(images, columns, rows, axes), heat, ratio, report, ui=look)
