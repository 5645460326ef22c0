"""Compare Images: two images, or batches, under a slider in the node."""

from __future__ import annotations

from torch import Tensor

from ..contract import io
from .shown import files_of


class TesseraCompareImages(io.ComfyNode):
    """Show two images under a slider."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraCompareImages",
            display_name="Compare Images",
            category="Tessera/image",
            description="Shows two images in the node with a slider between them: before and after.",
            search_aliases=["image comparer", "image compare", "before after", "slider", "side by side", "difference"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image_a", tooltip="The image left of the slider; of a batch, choose one in the node."),
                io.Image.Input(
                    "image_b",
                    optional=True,
                    tooltip="The image right of the slider; without it, the first two of image_a are compared.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, image_a: Tensor, image_b: Tensor | None = None) -> io.NodeOutput:
        """Save them for the node."""
        if image_b is None:
            image_a, image_b = image_a[:1], image_a[1:]
        return io.NodeOutput(ui={"a_images": files_of(image_a), "b_images": files_of(image_b) if len(image_b) else []})
