"""Style Preset: add the words of a named style to a prompt."""

from __future__ import annotations

from pathlib import Path

from ..contract import io, ui
from ..images.sheets import cell_of
from ..prompts.styles import STYLES, described, styled
from ..prompts.texts import one_line
from .shown import shown

THUMBNAILS = Path(__file__).parents[1] / "web" / "images" / "styles.jpg"
"""The same texture with every style, in the order of STYLES; `tools/style_sheet.py` makes it."""
COLUMNS = 7


class TesseraStylePreset(io.ComfyNode):
    """Add the words of a named style to a prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraStylePreset",
            display_name="Style Preset",
            category="Tessera/text",
            description="Adds the words of a style to a prompt, by the names that hosted image services use.",
            search_aliases=[
                "style",
                "preset style",
                "style preset",
                "art style",
                "prompt styler",
                "octoai",
                "leonardo",
            ],
            has_intermediate_output=True,
            inputs=[
                io.String.Input(
                    "prompt", multiline=True, dynamic_prompts=True, default="", tooltip="What the image should show."
                ),
                io.Combo.Input(
                    "style",
                    options=list(STYLES),
                    default="cinematic",
                    tooltip="The style: OctoAI's names in lower case, Leonardo's in upper case; type to search.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="prompt", tooltip="The prompt with the words of the style behind it."),
                io.String.Output(display_name="words", tooltip="The words alone; empty where a style adds none."),
            ],
        )

    @classmethod
    def execute(cls, prompt: str, style: str) -> io.NodeOutput:
        """Add the words, and show what the demo model makes of them."""
        better = styled(one_line(prompt), style)
        thumbnail = cell_of(THUMBNAILS, list(STYLES).index(style), COLUMNS, len(STYLES))
        look = ui.PreviewImage(thumbnail, cls=cls).as_dict() | shown(better)
        return io.NodeOutput(better, described("", STYLES[style]), ui=look)
