"""Safety Filter: hide images that a checker flags."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..contract import folder_paths, io
from ..images.safety import COVERS, hidden, unsafe
from .shown import shown

FOLDER = "safety_checker"


class TesseraSafetyFilter(io.ComfyNode):
    """Hide images that diffusers' safety checker flags."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSafetyFilter",
            display_name="Safety Filter",
            category="Tessera/image",
            description="Hides the images that a safety checker flags, or only reports them.",
            search_aliases=["nsfw", "safety checker", "content filter", "blur nsfw", "censor"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("images", tooltip="The image, or a batch; each is checked separately."),
                io.Combo.Input(
                    "checker",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A folder in models/safety_checker, or the model.safetensors in one.",
                ),
                io.Combo.Input(
                    "method",
                    options=[*COVERS, "report"],
                    default="text",
                    optional=True,
                    tooltip="How a flagged image is hidden: words on black, plain black, blurred or pixelated; "
                    "report does not hide it.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="All images, with the flagged ones hidden."),
                io.String.Output(display_name="report", tooltip="Which images were flagged."),
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, checker: str, method: str = "text") -> io.NodeOutput:
        """Check, then hide."""
        path = Path(folder_paths.get_full_path_or_raise(FOLDER, checker))
        flags = unsafe(path.parent if path.is_file() else path, images)
        numbers = [str(number) for number, flag in enumerate(flags, 1) if flag]
        report = f"Flagged: {', '.join(numbers)} of {len(flags)}." if numbers else f"Flagged: none of {len(flags)}."
        if method == "report" or not numbers:
            return io.NodeOutput(images, report, ui=shown(report))
        return io.NodeOutput(hidden(images, flags, method), report, ui=shown(report))
